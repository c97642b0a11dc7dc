"""Does a judge prefer the answer that it reads first, or second?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from strop.stats.share import Share, share, wilson


@dataclass(frozen=True, slots=True)
class PositionBias:
    """How often a verdict survives that the answers change places, and which place is liked.

    `PositionBias(consistency=Share(0.95, 0.89, 0.98), first=Share(0.52, 0.47, 0.57),
    preference=0.03, pairs=100, missing=0)`. `consistency` is the share of pairs with the same
    verdict in both orders; `first` the share of decided verdicts, of both orders, that went to the
    answer shown first (0.5 is fair). `preference` is the share of pairs in which the first place
    won twice minus that in which the second did: from -1 to 1. `missing` pairs lack a verdict.
    """

    consistency: Share
    first: Share
    preference: float
    pairs: int
    missing: int


def position_bias(
    straight: Sequence[float | None], swapped: Sequence[float | None]
) -> PositionBias:
    """From verdicts on the same pairs, each 1 for the pair's own first answer, 0 for its second,
    0.5 for a tie, `None` where it is missing: shown in the pair's order, and the other way round.

    `position_bias([1, 1, 0], [1, 0, 0])` is consistent on two pairs of three; in the second, both
    verdicts went to what was shown first. Raises `ValueError` if no pair has both verdicts.
    """
    both = [
        (one, other)
        for one, other in zip(straight, swapped, strict=True)
        if one is not None and other is not None
    ]
    if not both:
        raise ValueError("no pair has a verdict in both orders")
    same = sum(one == other for one, other in both)
    firsts = [[one, 1 - other] for one, other in both]
    decided = [(n, place) for n, pair in enumerate(firsts) for place in pair if place != 0.5]
    first = (
        share([place for _, place in decided], [n for n, _ in decided])
        if decided else Share(0.5, 0.0, 1.0)
    )  # fmt: skip
    preference = sum(pair == [1, 1] for pair in firsts) - sum(pair == [0, 0] for pair in firsts)
    return PositionBias(
        wilson(same, len(both)), first, preference / len(both), len(both), len(straight) - len(both)
    )


def consistent(
    straight: Sequence[float | None], swapped: Sequence[float | None], *, otherwise: float | None
) -> list[float | None]:
    """One verdict a pair: the common one, or `otherwise` (0.5 for a tie, `None` to abstain) where
    the orders disagree; `None` where one is missing."""
    return [
        None if one is None or other is None else one if one == other else otherwise
        for one, other in zip(straight, swapped, strict=True)
    ]
