"""Groups of items, one by one: where a mean hides who lost."""

from __future__ import annotations

from collections.abc import Sequence

from strop.evals.gate.pairing import Paired
from strop.stats import Comparison, superiority
from strop.stats.multiple import benjamini_hochberg
from strop.types import Slice

FEWEST = 5
"""A group with fewer clusters says nothing."""


def slices(pairs: Sequence[Paired], alpha: float) -> tuple[Slice, ...]:
    """Every group of every score, the surest change first.

    Two-sided p-values, adjusted over all groups (Benjamini and Hochberg 1995).
    """
    found = [
        (pair.score, column, value, _compared(pair, positions, alpha))
        for pair in pairs
        for (column, value), positions in _groups(pair).items()
        if len({pair.sides[i][0].cluster for i in positions}) >= FEWEST
    ]
    q_values = benjamini_hochberg([p_value for *_, (_, p_value) in found])
    made = [
        Slice(score, column, value, one.n, one.estimate, one.low, one.high, q_value)
        for (score, column, value, (one, _)), q_value in zip(found, q_values, strict=True)
    ]
    return tuple(sorted(made, key=lambda one: one.q_value))


def _compared(pair: Paired, positions: Sequence[int], alpha: float) -> tuple[Comparison, float]:
    """The comparison of a group and its two-sided p-value."""
    clusters = None if pair.clusters is None else [pair.clusters[i] for i in positions]
    grouped = clusters is not None and len(set(clusters)) < len(clusters)
    base, candidate = ([side[i] for i in positions] for side in (pair.base, pair.candidate))
    one = superiority(base, candidate, clusters=clusters if grouped else None, alpha=alpha)
    return one, min(1.0, 2 * min(one.p_value, 1 - one.p_value))


def _groups(pair: Paired) -> dict[tuple[str, str], list[int]]:
    """Positions of the items of every value of every slice column."""
    groups: dict[tuple[str, str], list[int]] = {}
    for i, (record, _) in enumerate(pair.sides):
        for column, value in record.slices.items():
            groups.setdefault((column, value), []).append(i)
    return groups
