"""Curves as SVG: no script, no library, the same in a browser, a notebook and on paper."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from strop.tracking.story.panels import Panel, Series

WIDTH, HEIGHT = 460, 190
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 14, 24
MOST_POINTS = 240
"""Points of a curve: more of them cannot be seen at this width."""
SMOOTHED_FROM = 25
"""Values of a curve from which on it is smoothed, the raw curve standing behind."""


def chart(panel: Panel, span: tuple[int, int], resumed: Sequence[int] = ()) -> str:
    """One panel as an `<svg>`; `span` is the first and the last step of the axis, which all panels
    of a page share. Alarms are marks on the axis, on the step at which they rang; resumed runs have
    a dashed line after the steps from which they went on."""
    values = np.concatenate([one.values_N for one in panel.series])
    low, high = bounds_of(float(values.min()), float(values.max()))
    parts = [*grid(low, high, span)]
    for step in resumed:
        x = _x(step + 0.5, span)
        parts.append(
            f'<line class="resumed" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" '
            f'y2="{HEIGHT - BOTTOM}"><title>resumed after step {step}</title></line>'
        )
    for one in panel.series:
        parts += _curve(one, (low, high), span)
    for alarm in panel.alarms:
        x, y = _x(alarm.step, span), HEIGHT - BOTTOM
        parts.append(f'<g class="alarm"><line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{y}"/>'
                     f'<path d="M{x - 6:.1f} {TOP - 10}h12l-6 10z"/>'
                     f"<title>{escape(alarm.said)}</title></g>")  # fmt: skip
    label = escape(spoken(panel), quote=True)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}" '
        f'data-span="{span[0]} {span[1]}">{"".join(parts)}</svg>'
    )


def spoken(panel: Panel) -> str:
    """What a panel shows, for those who cannot see it."""
    told = [
        f"{one.role} {one.values_N[0]:.3g} at step {one.steps_N[0]} to {one.values_N[-1]:.3g} at "
        f"step {one.steps_N[-1]}"
        for one in panel.series
    ]
    rang = [f"alarm: {alarm.said}" for alarm in panel.alarms]
    return f"{panel.title}: {'; '.join([*told, *rang])}"


def smooth(values_N: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """The mean of `window` values around each, of fewer at the ends; shape [N]."""
    sums = np.concatenate([[0.0], np.cumsum(values_N)])
    places = np.arange(len(values_N))
    start = np.maximum(0, places - window // 2)
    stop = np.minimum(len(values_N), places + window // 2 + 1)
    smoothed: NDArray[np.float64] = (sums[stop] - sums[start]) / (stop - start)
    return smoothed


def thinned(
    steps_N: NDArray[np.int64], values_N: NDArray[np.float64], most: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """At most `most` points, the lowest and the highest value of each stretch among them: a spike
    of one step is not lost."""
    if len(values_N) <= most:
        return steps_N, values_N
    edges = np.linspace(0, len(values_N), most // 2 + 1).astype(int)
    kept: list[int] = []
    for start, stop in itertools.pairwise(edges):
        part = values_N[start:stop]
        kept += sorted({start + int(part.argmin()), start + int(part.argmax())})
    return steps_N[kept], values_N[kept]


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers from `low` to `high`, about `count` of them."""
    span = high - low
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.7)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def bounds_of(low: float, high: float) -> tuple[float, float]:
    """Where an axis begins and ends: a little beyond the values, and never at one place."""
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return low - room, high + room


def _x(step: float, span: tuple[int, int]) -> float:
    wide = max(1, span[1] - span[0])
    return LEFT + (step - span[0]) / wide * (WIDTH - LEFT - RIGHT)


def _y(value: float, bounds: tuple[float, float]) -> float:
    low, high = bounds
    return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)


def grid(low: float, high: float, span: tuple[int, int]) -> Iterator[str]:
    """The lines of values and the numbers of both axes."""
    for value in ticks(low, high):
        y = _y(value, (low, high))
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield (f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
               f"{value:.4g}</text>")  # fmt: skip
    for step in ticks(*span, 5) if span[1] > span[0] else [float(span[0])]:
        if step != int(step):
            continue
        x = _x(step, span)
        yield (f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="middle">'
               f"{int(step)}</text>")  # fmt: skip


def _curve(one: Series, bounds: tuple[float, float], span: tuple[int, int]) -> Iterator[str]:
    kind = "training" if one.role == "training" else "held-out"
    smoothed = len(one.values_N) >= SMOOTHED_FROM and one.role == "training"
    steps_N, values_N = thinned(one.steps_N, one.values_N, MOST_POINTS)
    name = f"<title>{escape(one.name)}</title>"
    if len(values_N) == 1:
        x, y = _x(int(steps_N[0]), span), _y(float(values_N[0]), bounds)
        yield f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3">{name}</circle>'
        return
    raw = " raw" if smoothed else ""
    line = points(steps_N, values_N, bounds, span)
    yield f'<polyline class="{kind}{raw}" points="{line}">{name}</polyline>'
    if smoothed:
        window = max(3, len(one.values_N) // 20)
        mean_N = smooth(one.values_N, window)
        places = np.linspace(0, len(mean_N) - 1, min(len(mean_N), MOST_POINTS)).astype(int)
        line = points(one.steps_N[places], mean_N[places], bounds, span)
        yield f'<polyline class="{kind}" points="{line}">{name}</polyline>'


def points(
    steps_N: NDArray[np.int64], values_N: NDArray[np.float64],
    bounds: tuple[float, float], span: tuple[int, int],
) -> str:  # fmt: skip
    """A curve as the `points` of a line."""
    pairs = zip(steps_N.tolist(), values_N.tolist(), strict=True)
    return " ".join(f"{_x(step, span):.1f},{_y(value, bounds):.1f}" for step, value in pairs)
