"""Which turn of an episode earned what."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch

from strop.episodes import Episode
from strop.types import ScoredGroup


def turn_advantages(
    group: ScoredGroup, weight: float, baseline: Callable[[torch.Tensor], torch.Tensor]
) -> list[torch.Tensor]:
    """Advantages of every sampled token of every episode of a group, each [N of the episode].

        G_t = R - w (r_1 + ... + r_{t-1})
        A_t = baseline of G_t over the group's episodes that have a turn t

    R is the whole score, r are the environment's rewards of the turns, and w is the weight that the
    score gives them: what a turn earned before it was spoken is not its merit (returns to go, as in
    REINFORCE; credit by turn within a group: Zeng et al. 2025, arXiv 2505.11821). A turn that no
    other episode has gets 0. An episode without a score has no part in it.
    """
    episodes = [c for c in group.rollout.completions if isinstance(c, Episode)]
    returns: list[list[float]] = []
    for episode, score in zip(episodes, group.scores, strict=True):
        own: list[float] = []
        if score.total is not None:
            earlier = itertools.accumulate(
                (turn.reward or 0.0 for turn in episode.turns), initial=0
            )
            own = [score.total - weight * before for before in earlier][:-1]
        returns.append(own)
    dealt = [[0.0] * len(own) for own in returns]
    for number in range(max(map(len, returns), default=0)):
        members = [i for i, own in enumerate(returns) if len(own) > number]
        if len(members) > 1:
            found = baseline(torch.tensor([[returns[i][number] for i in members]]))[0]
            for i, value in zip(members, found.tolist(), strict=True):
                dealt[i][number] = value
    return [
        torch.tensor(values).repeat_interleave(
            torch.tensor([turn.tokens for turn in episode.turns], dtype=torch.long)
        )
        if values
        else torch.zeros(sum(episode.sampled))
        for values, episode in zip(dealt, episodes, strict=True)
    ]
