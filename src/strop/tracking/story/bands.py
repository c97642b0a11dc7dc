"""Several runs on one pair of axes: a line for each recipe, and a band over its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from strop.tracking.story.svg import (
    HEIGHT,
    MOST_POINTS,
    SMOOTHED_FROM,
    WIDTH,
    bounds_of,
    grid,
    points,
    smooth,
)

COLOURS = 8
"""Colours of the style sheet; the ninth line has the first one again, and another dash."""

Curve = tuple[NDArray[np.int64], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Band:
    """The mean over runs at each step, and the lowest and the highest of them: all of shape [N].
    Runs that have ended, or did not log at a step, are left out there. `number` is the colour."""

    name: str
    number: int
    steps_N: NDArray[np.int64]
    mean_N: NDArray[np.float64]
    low_N: NDArray[np.float64]
    high_N: NDArray[np.float64]
    runs: int

    @classmethod
    def of(cls, name: str, number: int, curves: Sequence[Curve]) -> Band:
        """At every step, of the runs that have it. Long curves are smoothed one by one."""
        steps = np.unique(np.concatenate([steps_N for steps_N, _ in curves]))
        rows = np.stack([_at(curve, steps) for curve in curves])
        places = np.linspace(0, len(steps) - 1, min(len(steps), MOST_POINTS)).astype(int)
        rows, steps = rows[:, places], steps[places]
        return cls(
            name, number, steps, np.nanmean(rows, 0), np.nanmin(rows, 0), np.nanmax(rows, 0),
            len(curves),
        )  # fmt: skip


def bands(title: str, shown: Sequence[Band]) -> str:
    """An `<svg>` of these lines over their common axes."""
    low, high = bounds_of(
        min(float(one.low_N.min()) for one in shown), max(float(one.high_N.max()) for one in shown)
    )
    span = (min(int(one.steps_N[0]) for one in shown),
            max(1, *(int(one.steps_N[-1]) for one in shown)))  # fmt: skip
    parts = list(grid(low, high, span))
    for one in shown:
        kind = f"run{one.number % COLOURS}" + (" again" if one.number >= COLOURS else "")
        name = f"<title>{escape(one.name)}</title>"
        if one.runs > 1:
            edge = points(one.steps_N, one.high_N, (low, high), span)
            back = points(one.steps_N[::-1], one.low_N[::-1], (low, high), span)
            parts.append(f'<polygon class="band {kind}" points="{edge} {back}">{name}</polygon>')
        line = points(one.steps_N, one.mean_N, (low, high), span)
        if len(one.steps_N) == 1:
            x, y = line.split(",")
            parts.append(f'<circle class="{kind}" cx="{x}" cy="{y}" r="3">{name}</circle>')
        else:
            parts.append(f'<polyline class="{kind}" points="{line}">{name}</polyline>')
    told = "; ".join(
        f"{one.name} ({one.runs} run{'s' if one.runs > 1 else ''}) {one.mean_N[0]:.3g} to "
        f"{one.mean_N[-1]:.3g}"
        for one in shown
    )
    label = escape(f"{title}: {told}", quote=True)
    return (f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
            f"{''.join(parts)}</svg>")  # fmt: skip


def _at(curve: Curve, steps: NDArray[np.int64]) -> NDArray[np.float64]:
    """The curve's values at these steps, NaN where it has none."""
    own, values_N = curve
    if len(values_N) >= SMOOTHED_FROM:
        values_N = smooth(values_N, max(3, len(values_N) // 20))
    found = np.full(len(steps), np.nan)
    found[np.searchsorted(steps, own)] = values_N
    return found
