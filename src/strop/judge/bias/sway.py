"""What sways a judge beyond what people prefer: length, formatting, its own family."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from strop.judge.bias.length import has_support
from strop.stats.bradley_terry import bradley_terry
from strop.stats.clustered import Floats, number_clusters, sandwich
from strop.stats.student import t_quantile

MARKS = re.compile(r"^[ \t]*(?:[-*+•]|\d+[.)]|#{1,6})[ \t]|\*\*|^[ \t]*```|\|", flags=re.MULTILINE)
"""List items, headings, bold text, fences and the cells of tables."""
SCALED = ("length", "formatting")
"""Differences that are told by their standard deviation; others are of one or minus one."""
FEWEST = 20
"""Prompts below which no sway is estimated."""


@dataclass(frozen=True, slots=True)
class Sway:
    """`Sway(estimate=0.8, low=0.3, high=1.3, unit=210.0)`: log-odds that the judge gives an answer
    for being one unit ahead (here: 210 characters longer), with the 95 % interval. The unit of
    length and formatting is a standard deviation of the differences. `linear` says that it was
    fitted to the judge's own log-odds, so that it can be taken out of them."""

    estimate: float
    low: float
    high: float
    unit: float
    linear: bool

    @property
    def is_known(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low * self.high > 0


def marks(text: str) -> int:
    """How many signs of formatting a text has: `marks("# A\\n- b\\n- **c**") == 5`."""
    return len(MARKS.findall(text))


def differences(answers: Sequence[str]) -> dict[str, float]:
    """What the first of two answers has more of: `{"length": 120.0, "formatting": -3.0}`, in
    characters and marks."""
    one, other = answers
    return {"length": float(len(one) - len(other)), "formatting": float(marks(one) - marks(other))}


def sways(
    log_odds: Sequence[float] | None,
    verdicts: Sequence[float],
    people: Sequence[float],
    apart: Mapping[str, Sequence[float]],
    clusters: Sequence[Hashable],
) -> dict[str, Sway]:
    """The sway of every difference in `apart`, all of them and people's preference held fixed.

    `verdicts` and `people` are [n]: 1 where the first answer won, 0.5 for a tie. With `log_odds`
    (the judge's own, for the first answer) the model is linear in them, which is what a correction
    needs; else it is logistic in the verdicts. Errors are by clusters. A difference that does not
    vary, follows from the others, or (length) is hardly ever near 0 has no sway: there is nothing
    to say about answers that are equal in it.

    People's preference is known by a word or a few, not as a quantity. Where better answers are
    longer, a part of what makes them better is therefore taken for a taste for length: a sway is
    then too high, for a judge without any taste as well.
    """
    if len(set(clusters)) < FEWEST:
        return {}
    design = [np.ones(len(people)), 2 * np.asarray(people, dtype=float) - 1]
    units: dict[str, float] = {}
    for name, values in apart.items():
        column = np.asarray(values, dtype=float)
        unit = float(column.std()) if name in SCALED else float(column.any())
        if unit == 0 or (name == "length" and not has_support(values)):
            continue
        if np.linalg.matrix_rank(np.column_stack([*design, column / unit])) == len(design) + 1:
            design.append(column / unit)
            units[name] = unit
    columns = dict(zip(["people", *units], design[1:], strict=True))
    if log_odds is None:
        fit = bradley_terry(["first"] * len(people), ["second"] * len(people), verdicts, columns,
                            clusters)  # fmt: skip
        found = {name: fit.effects[name] for name in units}
        return {n: Sway(e.estimate, e.low, e.high, units[n], False) for n, e in found.items()}
    estimates, halves = _least_squares(np.column_stack(design), np.asarray(log_odds), clusters)
    return {
        name: Sway(float(value), float(value - half), float(value + half), units[name], True)
        for name, value, half in zip(units, estimates[2:], halves[2:], strict=True)
    }


def chance_at_no_bias(
    log_odds: float, apart: Mapping[str, float], known: Mapping[str, Sway]
) -> float:
    """The chance that the first answer wins if both were equal in all that is known to sway the
    judge: its log-odds less each sway times the difference."""
    for name, sway in known.items():
        if sway.is_known and name in apart:
            log_odds -= sway.estimate * apart[name] / sway.unit
    return 1 / (1 + math.exp(-max(-700.0, min(700.0, log_odds))))


def _least_squares(
    design: Floats, values: Floats, clusters: Sequence[Hashable]
) -> tuple[Floats, Floats]:
    """Coefficients and the half widths of their 95 % intervals."""
    bread: Floats = np.linalg.inv(design.T @ design).astype(float)
    beta = bread @ (design.T @ values)
    index = number_clusters(clusters)
    spread = sandwich(design, values - design @ beta, bread, index)
    return beta, t_quantile(0.975, float(index.max())) * np.sqrt(np.diag(spread))
