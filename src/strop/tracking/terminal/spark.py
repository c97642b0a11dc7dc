"""Sparklines: a curve in one line of text, over an axis of steps that several lines share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

BLOCKS = "▁▂▃▄▅▆▇█"
PLAIN = "_.:-=+*#"
"""For terminals that have no block characters."""
GAP = " "


def sparkline(
    values: Sequence[float | None], bounds: tuple[float, float], levels: str = BLOCKS
) -> str:
    """One character a value, from the lowest level at `bounds[0]` to the highest at `bounds[1]`; a
    gap for a value that is missing or not finite. Where both bounds are the same every value stands
    at half height.

    `sparkline([0.0, 0.5, None, 1.0], (0.0, 1.0))` is `"▁▅ █"`.
    """
    low, high = bounds
    top = len(levels) - 1
    drawn = []
    for value in values:
        if value is None or not math.isfinite(value):
            drawn.append(GAP)
        elif high <= low:
            drawn.append(levels[top // 2])
        else:
            share = min(1.0, max(0.0, (value - low) / (high - low)))
            drawn.append(levels[math.floor(share * top + 0.5)])
    return "".join(drawn)


def column(step: int, span: tuple[int, int], width: int) -> int:
    """The column of a step, of `width` columns that the steps of `span` (first, last) share."""
    first, last = span
    return (step - first) * width // (last - first + 1)


def columns(
    steps_N: Iterable[int], values_N: Iterable[float], span: tuple[int, int], width: int
) -> list[float | None]:
    """The mean of the values in each of `width` columns; `None` where none was measured. Where
    there are more columns than steps, a step fills all that are its own."""
    sums, counts = [0.0] * width, [0] * width
    for step, value in zip(steps_N, values_N, strict=True):
        if not math.isfinite(value):
            continue
        begin = column(step, span, width)
        for place in range(begin, max(begin + 1, column(step + 1, span, width))):
            sums[place] += value
            counts[place] += 1
    return [total / count if count else None for total, count in zip(sums, counts, strict=True)]


def marks(steps: Iterable[int], span: tuple[int, int], width: int, sign: str = "▲") -> str:
    """`width` columns with a sign below each of these steps."""
    drawn = [GAP] * width
    for step in steps:
        drawn[column(step, span, width)] = sign
    return "".join(drawn)
