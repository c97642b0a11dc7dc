"""`strop show`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strop.cli.options import AsJsonLines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.text import Text

    from strop.tracking.story.story import Story

POLL = 1.0
"""Seconds between two looks at a run."""

STYLES = {"plain": "", "bold": "bold", "quiet": "dim", "good": "green", "alarm": "red",
          "held out": "yellow"}  # fmt: skip


def show(
    run: Annotated[Path, typer.Argument(help="The folder of a run: the recipe's `output`.")],
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again every second until the run ends.")
    ] = False,
    as_json: AsJsonLines = False,
) -> None:
    """Tell the story of a run: what rose, what fell, what rang; its curves, its newest samples.

    In a pipe, `--watch` prints a line for every new step, and the story at the end. Ctrl-C ends the
    watching and not the run.

    Example: strop show runs/dpo --watch
    """
    from rich.console import Console

    from strop.tracking.terminal.numbers import story_plain

    console = Console(highlight=False)
    told = looks(run) if watch else iter([look_once(run)])
    try:
        if as_json:
            for story in told:
                print(json.dumps(story_plain(story)), flush=True)
        elif watch and console.is_terminal:
            live(told, console)
        else:
            piped(told, console)
    except KeyboardInterrupt:
        raise typer.Exit from None


def look_once(run: Path) -> Story:
    from strop.tracking.story.story import read_story

    return read_story(run)


def looks(run: Path) -> Iterator[Story]:
    """The story whenever it has changed, until the run is over."""
    from strop.tracking.story.facts import METRICS
    from strop.tracking.story.log import MetricsLog
    from strop.tracking.story.story import read_story

    log, seen = MetricsLog(run / METRICS), None
    while True:
        story = read_story(run, log)
        now = (len(log), story.step, story.facts.state, len(story.samples), story.problems)
        if now != seen:
            seen = now
            yield story
        if story.facts.state in ("finished", "stopped"):
            return
        time.sleep(POLL)


def live(told: Iterator[Story], console: Console) -> None:
    """One screen that is drawn again; the last story stays."""
    from rich.live import Live

    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as screen:
        for story in told:
            screen.update(text_of(story, console), refresh=True)


def piped(told: Iterator[Story], console: Console) -> None:
    """A line for every look but the last, which is the whole story."""
    last: Story | None = None
    for story in told:
        if last is not None:
            of = f" of {last.total}" if last.total else ""
            console.print(f"step {last.step}{of}: {last.facts.state}", markup=False, soft_wrap=True)
        last = story
    if last is not None:
        console.print(text_of(last, console), soft_wrap=True)


def text_of(story: Story, console: Console) -> Text:
    """The story as wide as the terminal, and at most a hundred columns."""
    from rich.text import Text

    from strop.tracking.terminal.lines import ASCII, UNICODE, WIDTH, story_lines

    width = min(WIDTH, console.width) if console.is_terminal else WIDTH
    signs = UNICODE if console.encoding.lower().startswith("utf") else ASCII
    lines = story_lines(story, width, signs)
    return Text("\n").join(
        Text.assemble(*((text, STYLES[style]) for text, style in line)) for line in lines
    )
