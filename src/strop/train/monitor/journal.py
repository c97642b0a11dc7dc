"""Writes a finished step to the log, the samples, the alarms, the sinks and the caller."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from strop.recipe.train.methods import Recipe
from strop.tracking.runlog import RunLog, read_rows
from strop.tracking.sinks import Sinks
from strop.train.monitor.alarms import AlarmWatch, FiredAlarm
from strop.types import StepRecord


class RunJournal:
    """The log of a run. A resumed run starts at `step`: rows after it are dropped, and the alarms
    read the rows up to it again."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        step: int,
        sinks: Sinks,
        on_step: Callable[[StepRecord], None],
    ) -> None:
        self.log, self.samples = RunLog(folder / "metrics.jsonl"), RunLog(folder / "samples.jsonl")
        self.sinks, self.on_step, self.recipe = sinks, on_step, recipe
        self.begun = False
        """Whether what was measured before step 1 is written down."""
        self.rewind(step)

    def rewind(self, step: int) -> None:
        """Drop the rows after `step`; new alarms read those up to it."""
        self.log.truncate_after(step)
        self.samples.truncate_after(step)
        self.watch = AlarmWatch(self.recipe.alarms, self.recipe.dev)
        for row in read_rows(self.log.path) if self.log.path.exists() else ():
            self.watch.see(row)
            self.begun = True

    def write(self, record: StepRecord) -> list[FiredAlarm]:
        """Write the step everywhere; returns the alarms that fire."""
        fired = self.watch.see({"step": record.step, **record.metrics})
        alarms = {"alarms": [[alarm.action, alarm.said] for alarm in fired]} if fired else {}
        self.log.append({"step": record.step, **record.metrics, **alarms})
        for sample in record.samples:
            self.samples.append({"step": record.step, **sample})
        self.sinks.step(record.step, record.metrics)
        self.on_step(record)
        return fired
