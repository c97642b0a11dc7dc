"""Symptoms of reward hacking in a step's own samples: `hack/...` metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence

from strop.episodes import Episode
from strop.recipe.train.reward import RewardComponent
from strop.text.habits import HABITS
from strop.text.parse import plain
from strop.text.tool_habits import TOOL_HABITS
from strop.types import ScoredGroup

LEAST_SHARE = 0.05
"""Pay for length is measured only if this share of the reward's variance is left to explain."""


def habits_of(group: ScoredGroup) -> list[tuple[str, ...]]:
    """The habits that each completion of a group shows; of an episode its last words count, and
    what it did with its tools."""
    prompt = plain(group.rollout.task.prompt)
    said = group.rollout.completions
    written = [
        tuple(name for name, shows in HABITS.items() if shows(prompt, completion.text))
        for completion in said
    ]
    episodes = [completion for completion in said if isinstance(completion, Episode)]
    if not episodes:
        return written
    played = {name: shows(prompt, episodes) for name, shows in TOOL_HABITS.items()}
    return [
        (*names, *(name for name, shown in played.items() if shown[number]))
        for number, names in enumerate(written)
    ]


def symptoms(
    components: Sequence[RewardComponent],
    groups: Sequence[ScoredGroup],
    habits: Sequence[Sequence[Sequence[str]]],
) -> dict[str, float]:
    """`hack/<habit>` shares of all completions (`habits` by group, as `habits_of` gives them), and
    `hack/length_pay`."""
    shown = [names for group in habits for names in group]
    episodes = isinstance(groups[0].rollout.completions[0], Episode)
    watched = (*HABITS, *TOOL_HABITS) if episodes else tuple(HABITS)
    row = {f"hack/{name}": sum(name in h for h in shown) / len(shown) for name in watched}
    return row | {"hack/length_pay": length_pay(components[0].label, groups)}


def length_pay(primary: str, groups: Sequence[ScoredGroup]) -> float:
    """Correlation, from -1 to 1, of reward and length among completions of one prompt with the same
    first component: the pay for length itself.

    0 if less than 5 % of the reward's variance within groups remains at equal correctness.
    """
    lengths: list[float] = []
    rewards: list[float] = []
    whole = 0.0
    for group in groups:
        cells: dict[float | None, list[tuple[float, float]]] = {}
        for score, completion in zip(group.scores, group.rollout.completions, strict=True):
            if score.total is not None:
                cell = cells.setdefault(score.components[primary], [])
                cell.append((float(len(completion.ids)), score.total))
        whole += sum(r * r for r in _centred([r for cell in cells.values() for _, r in cell]))
        if len(cells) == 1 and whole == 0.0:
            continue
        for cell in cells.values():
            lengths += _centred([n for n, _ in cell])
            rewards += _centred([r for _, r in cell])
    left = math.fsum(r * r for r in rewards)
    spread = math.fsum(n * n for n in lengths)
    if left <= LEAST_SHARE * whole or spread == 0.0:
        return 0.0
    together = math.fsum(n * r for n, r in zip(lengths, rewards, strict=True))
    return together / math.sqrt(spread * left)


def _centred(values: Sequence[float]) -> list[float]:
    mean = math.fsum(values) / len(values) if values else 0.0
    return [value - mean for value in values]
