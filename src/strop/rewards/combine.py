"""Combines reward components into one number, and splits it into contributions. Pure arithmetic."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from strop.recipe.train.reward import RewardComponent

Parts = Mapping[str, float | None]
"""A completion's raw values by component."""

EPSILON = 1e-4
"""Added to a group's standard deviation, as in the advantages."""


def total_of(components: Sequence[RewardComponent], parts: Parts) -> float | None:
    """Product of the gates times weighted sum of the rest (1 if there are only gates); `None` if a
    component that is not optional has no value. Without a component every total is 0."""
    if not components:
        return 0.0
    gates, additive, missing = 1.0, None, False
    for component in components:
        value = parts[component.label]
        if value is None:
            missing = missing or not component.optional
            value = 1.0 if component.gate else 0.0
        if component.gate:
            gates *= value
        else:
            additive = (additive or 0.0) + component.weight * value
    return None if missing else gates * (1.0 if additive is None else additive)


def contributions(components: Sequence[RewardComponent], parts: Parts) -> dict[str, float] | None:
    """Each component's part of the total; the parts sum to it. `None` if there is no total.

    An additive component's part is its weighted value. A gate's part is the change it makes: with
    gates g1, g2 over a sum S, (g1 - 1) S for g1 and (g2 - 1) g1 S for g2. With gates alone S is the
    constant 1, which is left out.
    """
    if total_of(components, parts) is None:
        return None
    filled = {c.label: _filled(c, parts[c.label]) for c in components}
    added = {c.label: c.weight * filled[c.label] for c in components if not c.gate}
    left = sum(added.values()) if added else 1.0
    for component in components:
        if component.gate:
            added[component.label] = (filled[component.label] - 1.0) * left
            left *= filled[component.label]
    return added


def _filled(component: RewardComponent, value: float | None) -> float:
    if value is not None:
        return value
    return 1.0 if component.gate else 0.0


def total_range(
    components: Sequence[RewardComponent], ranges: Sequence[tuple[float, float] | None]
) -> tuple[float, float] | None:
    """The range of the totals of components that have these ranges; `None` where one has none that
    is known."""
    gates, added = (1.0, 1.0), (0.0, 0.0)
    for component, given in zip(components, ranges, strict=True):
        if given is None or component.normalize:
            return None
        clipped = [_clipped(component, end) for end in given]
        ends = [end for end in clipped if end is not None]
        if component.optional:
            ends.append(1.0 if component.gate else 0.0)
        if component.gate:
            corners = [gate * end for gate in gates for end in ends]
            gates = min(corners), max(corners)
        else:
            weighed = [component.weight * end for end in ends]
            added = added[0] + min(weighed), added[1] + max(weighed)
    if all(component.gate for component in components):
        return gates if components else added
    corners = [gate * end for gate in gates for end in added]
    return min(corners), max(corners)


def shaped(
    components: Sequence[RewardComponent], group: Sequence[Parts], *, normalize: bool
) -> list[dict[str, float | None]]:
    """A group's values, clipped; with `normalize`, centred and scaled where the recipe asks for it.

    A component whose values are all equal in the group becomes 0 for all (GDPO,
    arXiv 2601.05242, eq. 4: each reward normalised before the sum).
    """
    rows: list[dict[str, float | None]] = [dict(parts) for parts in group]
    for component in components:
        values = [_clipped(component, parts[component.label]) for parts in group]
        if component.normalize and normalize:
            values = _standardized(values)
        for row, value in zip(rows, values, strict=True):
            row[component.label] = value
    return rows


def _clipped(component: RewardComponent, value: float | None) -> float | None:
    if value is None or component.clip is None:
        return value
    low, high = component.clip
    return min(high, max(low, value))


def _standardized(values: Sequence[float | None]) -> list[float | None]:
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return [None if value is None else 0.0 for value in values]
    mean, spread = math.fsum(known) / len(known), statistics.stdev(known)
    return [None if value is None else (value - mean) / (spread + EPSILON) for value in values]
