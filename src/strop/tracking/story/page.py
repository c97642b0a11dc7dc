"""A run's story as HTML: one file that opens without a network, or a part of a larger page."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from strop.files import write_whole
from strop.tracking.story.panels import Panel
from strop.tracking.story.samples import chosen
from strop.tracking.story.story import Story, read_story
from strop.tracking.story.svg import chart

FILES = Path(__file__).parent / "files"
MOST_SAMPLES = 60
"""Samples on a page that cannot ask for more."""


@cache
def templates(*folders: Path) -> Environment:
    """Templates from these folders and the story's own; everything they show is escaped."""
    environment = Environment(
        loader=FileSystemLoader([*folders, FILES]), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["figure"] = figure
    return environment


def story_html(story: Story, *, samples: int = MOST_SAMPLES) -> str:
    """The body of a run's page, without head and `style`."""
    return templates().get_template("story.html").render(**shown(story, samples))


def style() -> str:
    """The style sheet of a story."""
    return (FILES / "story.css").read_text(encoding="utf-8")


def report_html(story: Story) -> str:
    """A whole page in one file, with its style and nothing else."""
    more = shown(story, MOST_SAMPLES)
    return templates().get_template("report.html").render(style=Markup(style()), **more)


def write_report(folder: Path) -> Path:
    """`report.html` of a run that has made its last step."""
    story = read_story(folder)
    path = folder / "report.html"
    done = replace(story, facts=replace(story.facts, state="finished", owner=None))
    write_whole(path, report_html(done))
    return path


def shown(story: Story, samples: int) -> dict[str, Any]:
    """What the templates read of a story."""
    return {
        "story": story,
        "facts": story.facts,
        "together": [_drawn(story, panel) for panel in story.placed("together")],
        "own": [_drawn(story, panel) for panel in story.placed("own")],
        "folded": story.placed("folded"),
        "samples": chosen(story.samples, samples),
    }


def figure(value: float) -> str:
    """A number with three digits that count."""
    return "" if value is None or np.isnan(value) else f"{value:.3g}"


def _drawn(story: Story, panel: Panel) -> dict[str, Any]:
    return {
        "panel": panel,
        "svg": Markup(chart(panel, story.span, story.facts.resumed)),
        "rows": [
            {"name": one.name, "first": one.values_N[0], "last": one.values_N[-1],
             "low": one.values_N.min(), "high": one.values_N.max()}
            for one in panel.series
        ],
    }  # fmt: skip
