"""The curve as one SVG: every score over the weight, and the target against what is forgotten."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

WIDTH, HEIGHT = 900, 380
LEFT, TOP, PANEL_WIDTH, PANEL_HEIGHT, GAP = 56, 40, 350, 250, 90
TARGET, KEPT, PASS, OTHER = (
    "#1f6feb",
    ("#d1242f", "#8250df", "#bf8700", "#6e7781"),
    "#1a7f37",
    "#fff",
)

Scale = Callable[[float], float]


def picture(curve: Mapping[str, Any]) -> str:
    """An SVG that needs nothing else, from `Curve.plain()`."""
    over, against = list(_over_weight(curve)), list(_against(curve))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="system-ui,sans-serif" font-size="12">\n'
        f'<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join([*over, *against])
    ) + "\n</svg>\n"


def _over_weight(curve: Mapping[str, Any]) -> Iterator[str]:
    """The left panel: one line a score, named below."""
    points = curve["points"]
    weights = [point["weight"] for point in points]
    names = [*curve["targets"], *curve["kept"]]
    values = [point["scores"][name] for point in points for name in names]
    x = _scale(_span(weights), LEFT, LEFT + PANEL_WIDTH)
    y = _scale(_span([0.0, *values]), TOP + PANEL_HEIGHT, TOP)
    yield _text(LEFT, TOP - 16, f"scores over the weight ({curve['method']})", weight="600")
    yield from _frame(LEFT, _span(weights), _span([0.0, *values]), x, y)
    for number, name in enumerate(names):
        colour = TARGET if name in curve["targets"] else KEPT[number % len(KEPT)]
        line = " ".join(f"{x(p['weight']):.1f},{y(p['scores'][name]):.1f}" for p in points)
        yield f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>'
        for p in points:
            yield _dot(x(p["weight"]), y(p["scores"][name]), colour, p["verdict"])
        row, column = divmod(number, 2)
        yield _text(LEFT + 180 * column, TOP + PANEL_HEIGHT + 42 + 16 * row, f"● {name}", colour)


def _against(curve: Mapping[str, Any]) -> Iterator[str]:
    """The right panel: the first target over the largest fall of a score that is to be kept."""
    if not curve["targets"] or not curve["kept"]:
        return
    points, target = curve["points"], curve["targets"][0]
    left = LEFT + PANEL_WIDTH + GAP
    lost = [point["forgotten"] for point in points]
    gained = [point["scores"][target] for point in points]
    x, y = (
        _scale(_span([0.0, *lost]), left, left + PANEL_WIDTH),
        _scale(_span([0.0, *gained]), TOP + PANEL_HEIGHT, TOP),
    )
    yield _text(left, TOP - 16, f"{target} against the largest fall of the others", weight="600")
    yield from _frame(left, _span([0.0, *lost]), _span([0.0, *gained]), x, y)
    line = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(lost, gained, strict=True))
    yield f'<polyline points="{line}" fill="none" stroke="{TARGET}" stroke-width="1.5"/>'
    for number, (point, a, b) in enumerate(zip(points, lost, gained, strict=True)):
        yield _dot(x(a), y(b), TARGET, point["verdict"])
        beside = 16 if number % 2 else -7  # neighbours' numbers stand apart
        yield _text(x(a) + 6, y(b) + beside, f"{point['weight']:g}", "#57606a")
    if any(point["verdict"] for point in points):
        yield _text(left, TOP + PANEL_HEIGHT + 42, "● passes the gate", PASS)


def _frame(
    left: float, across: tuple[float, float], upwards: tuple[float, float], x: Scale, y: Scale
) -> Iterator[str]:
    """Grid lines with their numbers."""
    for value in _ticks(*upwards):
        yield _line(left, y(value), left + PANEL_WIDTH, y(value))
        yield _text(left - 8, y(value) + 4, f"{value:g}", "#57606a", anchor="end")
    for value in _ticks(*across):
        yield _line(x(value), TOP, x(value), TOP + PANEL_HEIGHT)
        yield _text(x(value), TOP + PANEL_HEIGHT + 18, f"{value:g}", "#57606a", anchor="middle")


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _scale(span: tuple[float, float], start: float, end: float) -> Scale:
    return lambda value: start + (value - span[0]) / (span[1] - span[0]) * (end - start)


def _ticks(low: float, high: float) -> list[float]:
    """Four to ten round numbers from `low` to `high`."""
    power = 10.0 ** math.floor(math.log10(high - low))
    step = next(s * power for s in (1, 0.5, 0.2, 0.1) if (high - low) / (s * power) >= 4)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 10) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
            'stroke="#d0d7de" stroke-width="1"/>')  # fmt: skip


def _dot(x: float, y: float, colour: str, verdict: str | None) -> str:
    """Green where the gate passes, hollow where it does not, in the line's colour without one."""
    inside = colour if verdict is None else PASS if verdict == "pass" else OTHER
    edge = PASS if verdict == "pass" else colour
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{inside}" stroke="{edge}"/>'


def _text(
    x: float, y: float, said: str, colour: str = "#1f2328", *, anchor: str = "start",
    weight: str = "400",
) -> str:  # fmt: skip
    return (f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}" '
            f'font-weight="{weight}">{html.escape(said)}</text>')  # fmt: skip
