"""A run's story as lines of text, a hundred columns wide, that a terminal may colour."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len, chop_cells, set_cell_size

from strop.tracking.remaining import spoken
from strop.tracking.story.log import Alarm
from strop.tracking.story.panels import Panel, Series
from strop.tracking.story.samples import Sample
from strop.tracking.story.story import Story
from strop.tracking.terminal.numbers import numbers_of
from strop.tracking.terminal.spark import BLOCKS, PLAIN, columns, marks, sparkline

Style = Literal["plain", "bold", "quiet", "good", "alarm", "held out"]
Line = tuple[tuple[str, Style], ...]
"""A line in parts: `(("reward", "bold"), ("  0.31", "plain"))`."""

WIDTH, NARROWEST = 100, 60
FIGURE, BEST, WITH_BEST = 9, 17, 80
"""Columns of a number, of the best value with its step, and of lines from which on it is shown."""
SHOWN_SAMPLES, PROMPT_LINES, TEXT_LINES = 3, 2, 4
PACE = 20
"""Steps whose mean time says how long the others will take."""


@dataclass(frozen=True, slots=True)
class Signs:
    """What curves and marks are drawn with."""

    levels: str
    mark: str
    cut: str


UNICODE, ASCII = Signs(BLOCKS, "▲", "…"), Signs(PLAIN, "^", "~")


def story_lines(story: Story, width: int = WIDTH, signs: Signs = UNICODE) -> list[Line]:
    """The story in lines of at most `width` columns (at least `NARROWEST`): what happened, the
    curves that are read together, alarms, the method's own curves, the newest samples."""
    width = max(width, NARROWEST)
    lines = [*_head(story, width)]
    shown = [panel for panel in story.panels if panel.place != "folded"]
    if shown:
        lines += [(), _axis(story, width)]
    for panel in shown:
        lines += _drawn(panel, story.span, width, signs)
    lines += _alarms(story.alarms, width, signs)
    lines += _folded(story.placed("folded"), width)
    lines += _samples(story.samples, width, signs)
    return [_trimmed(line) for line in lines]


def written(lines: Sequence[Line]) -> str:
    """The lines without their styles."""
    return "\n".join("".join(text for text, _ in line) for line in lines)


def inert(text: str) -> str:
    """A text that a terminal only shows: control characters (escape sequences begin with one),
    those that turn the direction of writing and halves of characters become pictures of
    themselves."""
    return "".join(_pictured(one) if unicodedata.category(one)[0] == "C" else one for one in text)


def _trimmed(line: Line) -> Line:
    """A line of inert texts without spaces at its end."""
    parts = [(inert(text), style) for text, style in line]
    while parts and not parts[-1][0].rstrip():
        parts.pop()
    if parts:
        parts[-1] = (parts[-1][0].rstrip(), parts[-1][1])
    return tuple(parts)


def _pictured(character: str) -> str:
    return chr(0x2400 + ord(character)) if ord(character) < 0x20 else "\N{REPLACEMENT CHARACTER}"


def _head(story: Story, width: int) -> Iterator[Line]:
    facts = story.facts
    state: Style = "alarm" if facts.state == "stopped" else "good"
    of = f" of {story.total}" if story.total else ""
    told = [f"step {story.step}{of}", *_left(story), facts.owner or ""]
    if facts.resumed:
        told.append(f"resumed after step {', '.join(map(str, facts.resumed))}")
    rest = "".join(f", {one}" for one in told if one)
    name = _fitted(facts.name, width // 3).rstrip()
    begin = f"{name}  {facts.method}  {facts.state}"
    yield ((name, "bold"), (f"  {facts.method}  ", "plain"), (facts.state, state),
           (_cut(rest, width - cell_len(begin), ""), "plain"))  # fmt: skip
    yield from _wrapped(story.sentence, width)
    for problem in story.problems:
        yield from _wrapped(f"! {problem}", width, "alarm")


def _left(story: Story) -> list[str]:
    """How long the run will still take, where that can be said."""
    pace = next((one for panel in story.panels if panel.name == "step_time"
                 for one in panel.series), None)  # fmt: skip
    if story.facts.state != "running" or not story.total or pace is None:
        return []
    seconds = (story.total - story.step) * float(pace.values_N[-PACE:].mean())
    return [f"{spoken(seconds)} left"] if seconds > 0 else []


def _widths(width: int) -> tuple[int, int, int]:
    """Columns of titles, of curves and of the best value."""
    title, best = width * 3 // 10, BEST if width >= WITH_BEST else 0
    return title, width - title - 2 * FIGURE - best - 1, best


def _axis(story: Story, width: int) -> Line:
    title, curve, best = _widths(width)
    first, last = map(str, story.span)
    steps = f"{first}{last:>{curve - len(first)}}"
    heads = f"{'first':>{FIGURE}}{'last':>{FIGURE}}"
    heads += f"{'best at step':>{best}}" if best else ""
    return ((f"{'step':>{title - 1}} {steps} {heads}", "quiet"),)


def _drawn(panel: Panel, span: tuple[int, int], width: int, signs: Signs) -> Iterator[Line]:
    """A line for each curve of a panel, both within the same bounds, and one of its alarms."""
    title, curve, best = _widths(width)
    low = min((float(one.values_N.min()) for one in panel.series), default=0.0)
    high = max((float(one.values_N.max()) for one in panel.series), default=0.0)
    for number, one in enumerate(panel.series):
        named = panel.title if number == 0 else ""
        if one.role == "held out":
            named = f"  {panel.title}, held out" if number == 0 else "  held out"
        cells = columns(one.steps_N.tolist(), one.values_N.tolist(), span, curve)
        drawn = sparkline(cells, (low, high), signs.levels)
        style: Style = "held out" if one.role == "held out" else "plain"
        yield ((f"{_fitted(named, title - 1, signs.cut)} ", "bold" if number == 0 else "quiet"),
               (drawn, style), (f" {_figures(one, best)}", "plain"))  # fmt: skip
    if panel.alarms:
        rang = marks([alarm.step for alarm in panel.alarms], span, curve, signs.mark)
        names = ", ".join(dict.fromkeys(alarm.name for alarm in panel.alarms))
        told = _cut(f" {names}", width - title - curve, signs.cut)
        yield ((f"{'alarm':>{title - 1}} ", "quiet"), (f"{rang}{told}", "alarm"))


def _figures(series: Series, room: int) -> str:
    found = numbers_of(series)
    figures = f"{found.first:>{FIGURE}.3g}{found.last:>{FIGURE}.3g}"
    if not room or found.best is None:
        return figures
    return figures + f"{f'{found.best:.3g} at {found.best_step}':>{room}}"


def _alarms(alarms: Sequence[Alarm], width: int, signs: Signs) -> Iterator[Line]:
    for number, alarm in enumerate(alarms):
        if number == 0:
            yield ()
        yield from _wrapped(f"{signs.mark} {alarm.action}: {alarm.said}", width, "alarm")


def _folded(panels: Sequence[Panel], width: int) -> Iterator[Line]:
    """The curves that tell nothing, by what they are."""
    names: dict[str, list[str]] = {}
    for panel in panels:
        names.setdefault(panel.why, []).append(panel.name)
    told = "; ".join(f"{why}: {', '.join(found)}" for why, found in names.items())
    if told:
        yield ()
        yield from _wrapped(f"Flat or empty. {told}", width, "quiet")


def _samples(samples: Sequence[Sample], width: int, signs: Signs) -> Iterator[Line]:
    for sample in reversed(samples[-SHOWN_SAMPLES:]):
        about = [f"step {sample.step}"]
        if sample.reward is not None:
            about.append(f"reward {sample.reward:.3g}")
        if sample.habit:
            about.append(sample.habit)
        yield ()
        yield ((_cut(f"sample of {', '.join(about)}", width, signs.cut), "quiet"),)
        yield from _quoted("prompt", sample.prompt, PROMPT_LINES, width, signs)
        for name, text in sample.texts:
            yield from _quoted(name, text, TEXT_LINES, width, signs)


def _quoted(name: str, text: str, most: int, width: int, signs: Signs) -> Iterator[Line]:
    """A name and the first lines of a text beside it."""
    room = width - 14
    whole = [part for line in text.splitlines() for part in chop_cells(inert(line), room)]
    lines = whole[:most] or [""]
    if len(whole) > most:
        lines[-1] = f"{_cut(lines[-1], room - 1, '')}{signs.cut}"
    for number, line in enumerate(lines):
        yield ((f"  {name if number == 0 else '':<12}", "quiet"), (line, "plain"))


def _wrapped(text: str, width: int, style: Style = "plain") -> Iterator[Line]:
    for line in textwrap.wrap(inert(text), width, subsequent_indent="  "):
        yield ((line, style),)


def _cut(text: str, width: int, sign: str) -> str:
    """A text of at most `width` columns; what was cut ends with the sign."""
    text = inert(text)
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(0, width - cell_len(sign))) + sign


def _fitted(text: str, width: int, sign: str = "") -> str:
    """A text of exactly `width` columns."""
    return set_cell_size(_cut(text, width, sign), width)
