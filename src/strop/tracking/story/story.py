"""A run's folder as a story: state, sentence, panels, samples, problems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.errors import UsageError
from strop.tracking.story.facts import (
    METRICS,
    SAMPLES,
    RunFacts,
    facts_of,
    is_run,
    recipe_of,
    steps_of,
)
from strop.tracking.story.log import Alarm, MetricsLog
from strop.tracking.story.panels import Panel, panels_of
from strop.tracking.story.samples import Sample, SamplesLog
from strop.tracking.story.sentence import sentence


@dataclass(frozen=True, slots=True)
class Story:
    """All that is shown of a run: `story.sentence` is `"Over 80 steps the reward rose from 0.3 to
    0.81. No alarm rang."`.

    `total` is the number of steps that the run is to take, where it is known; `span` the first and
    the last step of the axis that all panels share. `problems` are files and lines that could not
    be read; the rest is shown all the same.
    """

    facts: RunFacts
    recipe: Mapping[str, Any]
    step: int
    total: int | None
    sentence: str
    panels: tuple[Panel, ...]
    alarms: tuple[Alarm, ...]
    samples: tuple[Sample, ...]
    problems: tuple[str, ...]

    @property
    def span(self) -> tuple[int, int]:
        firsts = [int(one.steps_N[0]) for panel in self.panels for one in panel.series]
        return min(firsts, default=0), max(self.step, 1)

    def placed(self, place: str) -> list[Panel]:
        """The panels of one place: `together`, `own` or `folded`."""
        return [panel for panel in self.panels if panel.place == place]


def read_story(
    folder: Path, log: MetricsLog | None = None, told: SamplesLog | None = None
) -> Story:
    """The story of the run in a folder; `log` and `told` are its metrics and samples as they were
    read before, if they were.

    Raises `UsageError` for a folder that holds no run.
    """
    if not is_run(folder):
        raise UsageError("this folder holds no run", where=str(folder),
                         fix="give the `output` folder of a `strop train`")  # fmt: skip
    log = MetricsLog(folder / METRICS) if log is None else log
    log.refresh()
    facts = facts_of(folder)
    recipe, wrong = recipe_of(folder)
    told = SamplesLog(folder / SAMPLES) if told is None else told
    told.refresh()
    epochs = log.series("epoch")[1]
    return Story(
        facts, recipe, log.step,
        steps_of(recipe, log.step, float(epochs[-1]) if len(epochs) else None),
        sentence(log), tuple(panels_of(log)), tuple(log.alarms), tuple(told.samples),
        (*facts.problems, *([wrong] if wrong else []), *log.problems, *told.problems),
    )  # fmt: skip
