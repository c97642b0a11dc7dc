"""Checks that base and candidate were scored on one scale, not 0 or 1 against 0 to 100."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from strop.errors import MissingEvidenceError
from strop.types import EvalRecord, Scale

Pair = tuple[EvalRecord, EvalRecord]

TOLERANCE = 1e-6
"""Rounding may take a score this far beyond its scale."""

LEAST_TOP = 5.0
"""Usual scales other than 0 to 1 end at 5, 10 or 100; a sum of rewards may reach 2."""

BEYOND = 0.95
"""Share of the nonzero scores above 1 that marks such a scale; counts, too, have many ones."""

ALIKE, KINDS, ITEMS = 0.5, 3, 10
"""Half of at least 10 items, with at least 3 different scores, differ by the same factor alone."""


def expect_one_scale(score: str, sides: Sequence[Pair], known: Scale | None = None) -> None:
    """Raise `MissingEvidenceError` where base and candidate were scored on different scales.

    The policy's scale (`known`) or the records' (`scale`) decides. If a side declares none, its
    scores have to lie within the scale of the other side, and two scales are inferred from the
    scores in two cases:

    - one side lies within 0 and 1 and is not all 0; the other is never negative, reaches 5 or more,
      and of its scores that are not 0 at least 95 % are above 1;
    - half of the items have the same factor, 2 or more, between their two scores.

    Real differences between models do not look like that, unless an unbounded figure (a length)
    collapsed; declare its scale then.
    """
    declared = {record.scale for side in sides for record in side} - {None}
    if known is not None:
        declared.add(known)
    if len(declared) > 1:
        raise _two(score, sides, f"declares {' and '.join(sorted(map(_shown, declared)))}")
    for scale in declared:
        _expect_within(score, sides, scale)
    silent = any(record.scale is None for side in sides for record in side)
    if known is None and silent and (_unit_against_larger(sides) or _by_a_factor(sides)):
        raise _two(score, sides, None)


def within(score: float, scale: Scale) -> bool:
    """Whether a score lies on a scale; `None` is an end without a bound."""
    low, high = scale
    return (low is None or score >= low - TOLERANCE) and (high is None or score <= high + TOLERANCE)


def _expect_within(score: str, sides: Sequence[Pair], scale: Scale | None) -> None:
    assert scale is not None
    if not all(within(value, scale) for place in (0, 1) for value in _values(sides, place)):
        raise _two(score, sides, f"declares {_shown(scale)}")


def _unit_against_larger(sides: Sequence[Pair]) -> bool:
    small, large = sorted((_values(sides, 0), _values(sides, 1)), key=lambda v: max(v, default=0.0))
    if not small or min(small + large) < 0 or not 0 < max(small) <= 1 or max(large) < LEAST_TOP:
        return False
    scored = [value for value in large if value != 0]
    return sum(value > 1 for value in scored) >= BEYOND * len(scored)


def _by_a_factor(sides: Sequence[Pair]) -> bool:
    both = [(one.score, other.score) for one, other in sides if one.score and other.score]
    if len(both) < ITEMS or len({score for score, _ in both}) < KINDS:
        return False
    factors = Counter(float(f"{other / one:.6g}") for one, other in both)
    [(factor, count)] = factors.most_common(1)
    return count >= ALIKE * len(both) and factor > 0 and max(factor, 1 / factor) >= 2


def _values(sides: Sequence[Pair], place: int) -> list[float]:
    return [side[place].score for side in sides if side[place].score is not None]  # type: ignore[misc]


def _two(score: str, sides: Sequence[Pair], declared: str | None) -> MissingEvidenceError:
    ranges = [f"{min(v):g} to {max(v):g}" for v in (_values(sides, 0), _values(sides, 1)) if v]
    said = f", and a side {declared}" if declared else ""
    return MissingEvidenceError(
        f"{score}: base has scores from {ranges[0]}, candidate from {ranges[-1]}{said}: these are "
        "two scales, and a difference between them means nothing",
        fix="score both on one scale; where it is one, say so: `scale: [lowest, highest]` beside "
        "the score in the policy, or in every row of both files (null for no bound)",
    )


def _shown(scale: Scale | None) -> str:
    low, high = scale or (None, None)
    if low is None and high is None:
        return "no bounds"
    return f"{'any' if low is None else f'{low:g}'} to {'any' if high is None else f'{high:g}'}"
