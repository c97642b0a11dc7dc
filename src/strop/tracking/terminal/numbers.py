"""The numbers beside a curve: first, last, best."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from strop.tracking.story.panels import HELD_OUT, Role, Series
from strop.tracking.story.story import Story

MORE_IS_BETTER = ("reward", "rewards/accuracies", "rewards/margins", "dev/")
LESS_IS_BETTER = ("loss",)
"""Metrics of which one end is the better one; a name with `/` at its end stands for all below it.
Of entropy, KL or a length nobody can say which is."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """A curve in numbers: `Numbers("reward", "training", 0.31, 0.72, 0.75, 38, 0.29, 0.75)`;
    `best` and the step of its first time are `None` where no end is the better one."""

    name: str
    role: Role
    first: float
    last: float
    best: float | None
    best_step: int | None
    lowest: float
    highest: float


def numbers_of(series: Series) -> Numbers:
    values = series.values_N
    metric = series.name.removeprefix(HELD_OUT)
    place = None
    if _among(metric, MORE_IS_BETTER):
        place = int(values.argmax())
    elif _among(metric, LESS_IS_BETTER):
        place = int(values.argmin())
    return Numbers(
        series.name, series.role, float(values[0]), float(values[-1]),
        None if place is None else float(values[place]),
        None if place is None else int(series.steps_N[place]),
        float(values.min()), float(values.max()),
    )  # fmt: skip


def story_plain(story: Story) -> dict[str, Any]:
    """A story for machines: its state, sentence, alarms, numbers, newest samples and problems."""
    facts = story.facts
    newest = [sample for sample in story.samples if sample.step == story.samples[-1].step]
    return {
        "folder": str(facts.folder),
        "method": facts.method,
        "state": facts.state,
        "owner": facts.owner,
        "step": story.step,
        "total": story.total,
        "sentence": story.sentence,
        "alarms": [asdict(alarm) for alarm in story.alarms],
        "metrics": [asdict(numbers_of(one)) for panel in story.panels for one in panel.series],
        "samples": [{**asdict(sample), "texts": dict(sample.texts)} for sample in newest],
        "problems": list(story.problems),
    }


def _among(metric: str, names: tuple[str, ...]) -> bool:
    return any(metric == one or (one.endswith("/") and metric.startswith(one)) for one in names)
