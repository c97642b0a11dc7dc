"""Compares two evals item by item, only if both have the same items; and group by group, because a
mean hides groups that lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from strop.errors import MissingEvidenceError
from strop.recipe.loading.yaml_text import short
from strop.stats import Comparison, superiority
from strop.stats.multiple import benjamini_hochberg
from strop.types import EvalRecord, Slice

Key = tuple[str, int]
"""An item and its sample."""

FEWEST = 5
"""A group with fewer clusters is left out."""


@dataclass(frozen=True, slots=True)
class Paired:
    """Scores of one name on both sides, by position: `Paired("accuracy", base=(0.0, 1.0),
    candidate=(1.0, 1.0), clusters=None, unscored=0, sides=(...))`.

    `clusters` labels the items if some belong together (samples of one item do). `sides` are the
    two records of every position.
    """

    score: str
    base: tuple[float, ...]
    candidate: tuple[float, ...]
    clusters: tuple[str, ...] | None
    unscored: int
    sides: tuple[tuple[EvalRecord, EvalRecord], ...]

    @property
    def is_binary(self) -> bool:
        return {*self.base, *self.candidate} <= {0.0, 1.0}


def paired(
    base: Sequence[EvalRecord],
    candidate: Sequence[EvalRecord],
    score: str,
    *,
    max_unscored: float = 0.0,
) -> Paired:
    """Pair both sides of one score.

    An item that one side could not score counts against the candidate: a missing score of the
    candidate becomes the lowest score seen, one of the base the highest. Raises
    `MissingEvidenceError` for a score that a side lacks, unequal items, too many without a score,
    or a single item.
    """
    left, right = _by_item(base, score), _by_item(candidate, score)
    for side, found, records in (("base", left, base), ("candidate", right, candidate)):
        if not found:
            known = sorted({short(record.task) for record in records})[:20]
            raise MissingEvidenceError(
                f"the {side} has no scores named {score!r}", fix=f"it has {', '.join(known)}"
            )
    _expect_same_items(score, left, right)
    sides = tuple((left[key], right[key]) for key in left)
    unscored = sum(one.score is None or other.score is None for one, other in sides)
    if unscored > max_unscored * len(sides):
        what = "items" if len({one.item for one, _ in sides}) == len(sides) else "answers"
        raise MissingEvidenceError(
            f"{score}: {unscored} of {len(sides)} {what} could not be scored on both sides",
            fix="mend the reward or judge and run the suite again (unscored is not zero), or allow "
            "a share with max_unscored in the policy: they then count against the candidate",
        )
    seen = [r.score for side in sides for r in side if r.score is not None]
    if not seen:
        raise MissingEvidenceError(f"{score}: no item was scored", fix="mend the reward or judge")
    if len(sides) < 2:
        raise MissingEvidenceError(f"{score}: one item proves nothing", fix="measure more items")
    clusters = tuple(_cluster(score, *side) for side in sides)
    return Paired(
        score=score,
        base=tuple(max(seen) if one.score is None else one.score for one, _ in sides),
        candidate=tuple(min(seen) if other.score is None else other.score for _, other in sides),
        clusters=clusters if len(set(clusters)) < len(clusters) else None,
        unscored=unscored,
        sides=sides,
    )


def _cluster(score: str, base: EvalRecord, candidate: EvalRecord) -> str:
    """The cluster of an item. Both sides have to agree; one side may leave it out."""
    given = {record.cluster for record in (base, candidate)} - {base.item}
    if len(given) > 1:
        raise MissingEvidenceError(
            f"{score}: item {base.item!r} belongs to cluster {base.cluster!r} in base and "
            f"{candidate.cluster!r} in candidate",
            fix="write the same clusters on both sides",
        )
    return given.pop() if given else base.item


def _expect_same_items(
    score: str, left: Mapping[Key, EvalRecord], right: Mapping[Key, EvalRecord]
) -> None:
    if left.keys() == right.keys():
        return
    only_left, only_right = left.keys() - right.keys(), right.keys() - left.keys()
    example = sorted(only_left or only_right)[0][0]
    raise MissingEvidenceError(
        f"{score}: base and candidate were measured on different items ({len(only_left)} only in "
        f"base, {len(only_right)} only in candidate, for example item {example!r})",
        fix="run the same suite on both",
    )


def _by_item(records: Sequence[EvalRecord], score: str) -> dict[Key, EvalRecord]:
    found: dict[Key, EvalRecord] = {}
    for record in records:
        if record.task == score:
            key = (record.item, record.sample)
            if key in found:
                raise MissingEvidenceError(
                    f"{score}: item {record.item!r} appears twice",
                    fix="give every row its own item (or sample number)",
                )
            found[key] = record
    return found


def slices(pairs: Sequence[Paired], alpha: float) -> tuple[Slice, ...]:
    """Every group of every score, the most significant change first.

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
