"""Writes checkpoints in the background: a step waits for the copy of its tensors, not for the
disk."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

import torch

from strop.distributed.processes import WritingGroup
from strop.distributed.world import ALONE, World
from strop.errors import TrainingError
from strop.files import sweep
from strop.train.loop.state import TrainState
from strop.train.rundir.checkpoint import (
    by_process,
    capture,
    newest_whole,
    random_states,
    roll_back,
    step_of,
    write_checkpoint,
)


class Writer:
    """A thread that writes a run's checkpoints, one after the other.

    Of several processes the first one writes; of a sharded run each its part. An error in the
    thread is raised by the next call of `check`, `save`, `submit` or `wait`, and at the end of the
    `with` block.
    """

    def __init__(self, run: Path, keep: int, step: int, world: World = ALONE) -> None:
        self.run, self.keep, self.step, self.world = run, keep, step, world
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._pending: tuple[str, Future[object]] | None = None
        self._group: WritingGroup | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()
        self.wait()

    def save(
        self,
        state: TrainState,
        *,
        best: int | None,
        random: dict[str, torch.Tensor] | None = None,
        ends: bool = False,
    ) -> None:
        """Copy `state` and have it written; nothing to do for a step that was saved already.

        Where training `ends` nothing is copied: `state` stays as it is until `wait` returns.
        """
        if state.step == self.step:
            return
        self.wait()  # one copy in memory, and checkpoints in their order
        self.step = state.step
        streams = by_process(self.world.by_data_rank(random or random_states()))
        if state.network.is_sharded:
            self._group = self._group or WritingGroup.of(self.world)
        elif self.world.rank:
            return
        snapshot = capture(state, streams, copy=not ends)
        group = self._group
        self.submit(
            f"the checkpoint of step {state.step}",
            lambda: write_checkpoint(snapshot, self.run, keep=self.keep, best=best, group=group),
        )

    def submit(self, what: str, write: Callable[[], object]) -> None:
        """Run `write` in the thread after all earlier work; `what` names it if it fails."""
        self.wait()
        self._pending = what, self._thread.submit(write)

    def roll_back(self, before: int) -> Path | None:
        """Drop the checkpoints of step `before` and later, also one that is being written; returns
        the newest one left."""
        self.wait()
        left = self.world.first(lambda: roll_back(self.run, before))
        self.step = step_of(left)
        return left

    def check(self) -> None:
        """Raise the error of a write that has failed by now."""
        if self._pending is not None and self._pending[1].done():
            self.wait()

    def wait(self) -> None:
        """Wait until everything is on disk; raises `TrainingError` if something cannot be
        written."""
        if self._pending is None:
            return
        (what, future), self._pending = self._pending, None
        error = future.exception()
        if error is not None:
            sweep(self.run)
            kept = newest_whole(self.run)
            left = f"; checkpoint-{step_of(kept)} is whole" if kept else ""
            raise TrainingError(
                f"{what} could not be written: {error}{left}",
                where=str(self.run),
                fix="make room, then go on with --resume",
            ) from error
