"""Overlong shaping: answers that come near the limit lose reward before they are cut."""

from __future__ import annotations

from dataclasses import replace

from strop.types import Score, ScoredGroup

NAME = "overlong"


def overlong_penalty(length: int, max_tokens: int, buffer: int) -> float:
    """0 up to max_tokens - buffer tokens, then linearly down to -1 at max_tokens.

    Yu et al. 2025 (DAPO, arXiv 2503.14476), equation 13; a cut answer counts as one of
    max_tokens.
    """
    into_buffer = length - (max_tokens - buffer)
    return -min(1.0, max(0.0, into_buffer / buffer))


def shaped(group: ScoredGroup, max_tokens: int, buffer: int) -> ScoredGroup:
    """The group with the penalty added to every total and kept as a component of its own."""
    scores = []
    for score, completion in zip(group.scores, group.rollout.completions, strict=True):
        penalty = overlong_penalty(len(completion.ids), max_tokens, buffer)
        total = None if score.total is None else score.total + penalty
        scores.append(Score(total, {**score.components, NAME: penalty}))
    return replace(group, scores=tuple(scores))
