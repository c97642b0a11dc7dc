"""What happened in a step's episodes."""

from __future__ import annotations

from collections.abc import Sequence

from strop.episodes import Episode
from strop.types import FAILED, ScoredGroup


def episode_metrics(groups: Sequence[ScoredGroup]) -> dict[str, float]:
    """Means over the episodes: `episode/turns`, `episode/forks`, and whatever environments count
    (`episode/tool_calls`); `episode/failed` is the share that failed by nobody's doing. Empty where
    answers are no episodes."""
    episodes = [c for g in groups for c in g.rollout.completions if isinstance(c, Episode)]
    if not episodes:
        return {}
    names = sorted({name for episode in episodes for name in episode.facts})
    row = {
        f"episode/{name}": sum(one.facts.get(name, 0.0) for one in episodes) / len(episodes)
        for name in names
    }
    row["episode/failed"] = sum(one.finish in FAILED for one in episodes) / len(episodes)
    rewards = [one.reward for one in episodes if one.reward is not None]
    if rewards:
        row["episode/reward"] = sum(rewards) / len(rewards)
    return row
