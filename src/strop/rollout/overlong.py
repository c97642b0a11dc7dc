"""Overlong shaping: answers that come near the limit lose reward before they are cut."""

from __future__ import annotations

from dataclasses import replace

from strop.text.lengths import overlong_penalty
from strop.types import Score, ScoredGroup

NAME = "overlong"


def with_overlong_penalty(group: ScoredGroup, max_tokens: int, buffer: int) -> ScoredGroup:
    """The group with the penalty added to every total and kept as a component of its own."""
    scores = []
    for score, completion in zip(group.scores, group.rollout.completions, strict=True):
        penalty = overlong_penalty(len(completion.ids), max_tokens, buffer)
        total = None if score.total is None else score.total + penalty
        scores.append(Score(total, {**score.components, NAME: penalty}))
    return replace(group, scores=tuple(scores))
