"""Writes a finished step to the log, the samples, the alarms, the sinks and the caller."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from strop.distributed.world import ALONE, World
from strop.recipe.train.methods import Recipe
from strop.tracking.runlog import RunLog, read_rows
from strop.tracking.sinks import Sinks
from strop.train.monitor.alarms import AlarmWatch, FiredAlarm
from strop.types import StepRecord


class RunJournal:
    """The log of a run, kept by its first process. A resumed run starts at `step`: rows after it
    are dropped, and the alarms read the rows up to it again."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        step: int,
        sinks: Sinks,
        on_step: Callable[[StepRecord], None],
        world: World = ALONE,
    ) -> None:
        self.log, self.samples = RunLog(folder / "metrics.jsonl"), RunLog(folder / "samples.jsonl")
        self.sinks, self.on_step, self.recipe, self.world = sinks, on_step, recipe, world
        self.rewind(step)

    def rewind(self, step: int) -> None:
        """Drop the rows after `step`; new alarms read those up to it."""
        self.begun = self.world.first(lambda: self._rewind(step))
        """Whether what was measured before step 1 is written down."""

    def _rewind(self, step: int) -> bool:
        self.log.truncate_after(step)
        self.samples.truncate_after(step)
        self.watch = AlarmWatch(self.recipe.alarms, self.recipe.dev)
        rows = list(read_rows(self.log.path)) if self.log.path.exists() else []
        for row in rows:
            self.watch.see(row)
        return bool(rows)

    def write(self, record: StepRecord) -> list[FiredAlarm]:
        """Write the step everywhere; returns the alarms that fire."""
        return self.world.first(lambda: self._write(record))

    def _write(self, record: StepRecord) -> list[FiredAlarm]:
        fired = self.watch.see({"step": record.step, **record.metrics})
        alarms = {"alarms": [[alarm.action, alarm.said] for alarm in fired]} if fired else {}
        self.log.append({"step": record.step, **record.metrics, **alarms})
        for sample in record.samples:
            self.samples.append({"step": record.step, **sample})
        self.sinks.step(record.step, record.metrics)
        self.on_step(record)
        return fired
