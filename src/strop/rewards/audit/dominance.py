"""Measures which component drives group-centred advantages, and whether a wrong answer can win.

The figures are computed from scored groups: from a file of completions (`strop reward audit`) or
from a training step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from strop.recipe.train.reward import RewardComponent
from strop.rewards.combine import contributions, shaped
from strop.rewards.find import declared_range

Group = Sequence[Mapping[str, float | None]]
"""Raw component values of one prompt's completions."""

SAFETY = 1.25
"""A proposed weight is this many times the smallest sufficient one."""


@dataclass(frozen=True, slots=True)
class Dominance:
    """`shares[k]` is D_k = sum Cov(c_k, R) / sum Var(R) over the groups; shares add to 1. They are
    empty if the reward varies within no group.

    `inversions` is P(R_i < R_j | primary_i > primary_j) over pairs within groups, equal totals
    counted as half; `None` if the primary component never differs. `collapsed` is the share of
    pairs with different components but equal totals. `dead` components have one value everywhere,
    `silent` ones never gave a number.
    """

    shares: dict[str, float]
    inversions: float | None
    collapsed: float
    dead: tuple[str, ...]
    silent: tuple[str, ...]
    groups: int


def dominance(components: Sequence[RewardComponent], groups: Sequence[Group]) -> Dominance:
    """Measure what drives the reward of these groups; the first component is the primary one."""
    labels = [component.label for component in components]
    primary = labels[0]
    covariance = dict.fromkeys(labels, 0.0)
    variance = 0.0
    lost = pairs = collapsed = differing = 0.0
    for group in groups:
        made = shaped(components, group, normalize=True)
        added = [contributions(components, parts) for parts in made]
        known = [(raw, a) for raw, a in zip(group, added, strict=True) if a is not None]
        totals = [math.fsum(a.values()) for _, a in known]
        variance += _covariance(totals, totals)
        for label in labels:
            covariance[label] += _covariance([a[label] for _, a in known], totals)
        for i, j in combinations(range(len(known)), 2):
            same = math.isclose(totals[i], totals[j], abs_tol=1e-12)
            if dict(known[i][0]) != dict(known[j][0]):
                differing += 1
                collapsed += same
            order = (known[i][0][primary] or 0.0) - (known[j][0][primary] or 0.0)
            if order:
                pairs += 1
                lost += 0.5 if same else float((totals[i] - totals[j]) * order < 0)
    values = {
        label: {parts[label] for group in groups for parts in group if parts[label] is not None}
        for label in labels
    }
    return Dominance(
        shares={label: covariance[label] / variance for label in labels} if variance else {},
        inversions=lost / pairs if pairs else None,
        collapsed=collapsed / differing if differing else 0.0,
        dead=tuple(label for label in labels if len(values[label]) == 1),
        silent=tuple(label for label in labels if not values[label]),
        groups=len(groups),
    )


def _covariance(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Population covariance; 0 for fewer than two."""
    if len(xs) < 2:
        return 0.0
    x_mean, y_mean = math.fsum(xs) / len(xs), math.fsum(ys) / len(ys)
    return math.fsum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True)) / len(xs)


@dataclass(frozen=True, slots=True)
class Margin:
    """How safely a right answer outranks a wrong one, whatever the other components say.

    `value` is w_p d_p minus the ranges of all other components; at 0 or below a wrong answer can
    win. `needed` is a primary weight that is large enough; `against` are the opposing components,
    widest range first.
    """

    value: float
    needed: float
    against: tuple[str, ...]


def static_margin(
    components: Sequence[RewardComponent], groups: Sequence[Group], step: float = 1.0
) -> Margin:
    """The margin of the first component, whose right and wrong answers lie `step` apart.

    A component's range is its `clip`, else its built-in's declared range, else the range in these
    groups. Gates can take away the gated sum, so its range counts against the margin.
    """
    primary, others = components[0], components[1:]
    spans = {c.label: range_of(c, groups) for c in components}
    widths = {
        c.label: abs(c.weight) * (spans[c.label][1] - spans[c.label][0])
        for c in others
        if not c.gate
    }
    if primary.gate:
        least = math.fsum(
            min(c.weight * spans[c.label][0], c.weight * spans[c.label][1])
            for c in others
            if not c.gate
        )
        value = least if widths else step
        return Margin(value, 1.0, tuple(sorted(widths, key=lambda k: -widths[k])))
    lowest_gate = math.prod(spans[c.label][0] for c in others if c.gate)
    value = abs(primary.weight) * step - math.fsum(widths.values())
    gates = tuple(c.label for c in others if c.gate)
    if gates and lowest_gate <= 0:  # a right answer can be gated to nothing
        low = math.fsum(min(0.0, c.weight * spans[c.label][0]) for c in others if not c.gate)
        value = min(value, low - math.fsum(widths.values()))
    order = tuple(sorted(widths, key=lambda k: -widths[k]))
    return Margin(value, SAFETY * math.fsum(widths.values()) / step, (*gates, *order))


def range_of(component: RewardComponent, groups: Sequence[Group]) -> tuple[float, float]:
    """The least and the greatest value a component can have."""
    if component.clip is not None:
        return component.clip
    if (declared := declared_range(component)) is not None:
        return declared
    seen = [v for group in groups for parts in group if (v := parts[component.label]) is not None]
    return (min(seen), max(seen)) if seen else (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class RewardFault:
    """A fault of a reward, and its fix."""

    component: str
    problem: str
    fix: str


def faults(
    components: Sequence[RewardComponent], found: Dominance, margin: Margin
) -> list[RewardFault]:
    """All faults for which an audit fails; empty for a sound reward."""
    primary = components[0].label
    wrong = [
        RewardFault(label, "never gave a number on these completions",
              "check its columns and what it raises, or drop it")
        for label in found.silent
    ]  # fmt: skip
    wrong += [
        RewardFault(label, f"gave the same value to all completions of {found.groups} groups: it "
              "teaches nothing", "drop it, or make it tell these completions apart")
        for label in found.dead
    ]  # fmt: skip
    if margin.value <= 0 and margin.against:
        culprit = margin.against[0]
        wrong.append(
            RewardFault(culprit, f"can outvote {primary}: a wrong answer can outrank a right one "
                  f"(margin {margin.value:+.3g})", _mend(components, margin))
        )  # fmt: skip
    if found.shares:
        leader = max(found.shares, key=lambda label: found.shares[label])
        if leader != primary and found.shares[leader] > 0.5:
            said = (
                f"drives {found.shares[leader]:.0%} of the advantage, {primary} only "
                f"{found.shares[primary]:.0%}"
            )
            wrong.append(RewardFault(leader, said, _mend(components, margin)))
    if found.inversions is not None and found.inversions > INVERSIONS:
        said = f"{found.inversions:.1%} of pairs within a group rank the worse answer higher"
        wrong.append(RewardFault(primary, said, _mend(components, margin)))
    return wrong


INVERSIONS = 0.01
"""Share of wrongly ranked pairs an audit accepts."""


def _mend(components: Sequence[RewardComponent], margin: Margin) -> str:
    primary = components[0]
    if primary.gate:
        return "clip the other components from 0 up, so that a right answer never earns less than 0"
    gates = [c.label for c in components[1:] if c.gate]
    if gates:
        return (
            f"list {primary.label} with gate: true as well, or make {', '.join(gates)} a weighted "
            "component"
        )
    return f"set {primary.label} weight: {margin.needed:.3g} or more, or gate: true"
