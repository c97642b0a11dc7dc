"""Handles updates that are not finite: leave out the rest of the step, go back to a checkpoint,
stop.

After going back, the run skips the records of all steps since the checkpoint, as PaLM did after
spikes (Chowdhery et al. 2022, arXiv 2204.02311, section 5.1). `TrainState.nonfinite` keeps the
count, so that a killed run resumes the same way.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from strop.distributed.world import ALONE, World
from strop.errors import NotFiniteError
from strop.files import write_rows
from strop.train.loop.state import TrainState
from strop.train.loop.updater import LOWER
from strop.train.rundir.checkpoint import restore
from strop.types import NotFinite, StepRecord


class Recovery:
    """`most` updates in a row may be left out. `go_back(step)` drops what the run wrote from that
    step on and returns the newest checkpoint before it, if there is one."""

    def __init__(
        self,
        state: TrainState,
        folder: Path,
        most: int,
        go_back: Callable[[int], Path | None],
        world: World = ALONE,
    ) -> None:
        self.state, self.folder, self.most, self.go_back = state, folder, most, go_back
        self.world = world

    def watch(self, steps: Iterator[StepRecord]) -> Iterator[StepRecord]:
        """The steps, without those that are undone by going back to a checkpoint.

        Raises `NotFiniteError` where going back did not help, or there is nothing to go back to.
        """
        seen = self.state.nonfinite
        for record in steps:
            if record.not_finite is None:
                seen.in_a_row = 0
                yield record
                continue
            seen.in_a_row += 1
            if seen.in_a_row <= self.most:
                said = "; ".join(record.not_finite.tensors)
                made = record.not_finite.made
                warnings.warn(
                    f"step {record.step} made {made} and left out the rest, which is not finite: "
                    f"{said}"
                    if made
                    else f"step {record.step} made no update, for it is not finite: {said}",
                    stacklevel=2,
                )
                yield record
            else:
                self._too_many(record.step, record.not_finite)

    def _too_many(self, step: int, found: NotFinite) -> None:
        seen = self.state.nonfinite
        first = step - seen.in_a_row + 1
        saved = self.world.first(lambda: save_batch(self.folder, step, found))
        if seen.went_back:
            raise _stopped(step, found, saved, "going back to a checkpoint did not help")
        checkpoint = self.go_back(first)
        if checkpoint is None:
            raise _stopped(step, found, saved, "there is no checkpoint to go back to")
        restore(self.state, checkpoint, self.world.data_rank)
        seen.went_back, self.state.position.shift = True, step - self.state.step
        warnings.warn(
            f"steps {first} to {step} were not finite ({'; '.join(found.tensors)}; the batch is in "
            f"{saved}): what they learnt is undone, back to {checkpoint.name}, "
            f"and on with the records after those of step {step}",
            stacklevel=3,
        )


def save_batch(folder: Path, step: int, found: NotFinite) -> Path:
    """`nonfinite-step-<n>/batch.jsonl`: first what was not finite, then the records."""
    path = folder / f"nonfinite-step-{step}" / "batch.jsonl"
    path.parent.mkdir(exist_ok=True)
    rows: list[Mapping[str, Any]] = [{"step": step, "not_finite": found.tensors}, *found.batch]
    write_rows(path, rows)
    return path


def _stopped(step: int, found: NotFinite, saved: Path, why: str) -> NotFiniteError:
    return NotFiniteError(
        f"step {step}",
        [*found.tensors, f"{why}; the batch is in {saved}"],
        fix=f"{LOWER}; run.skip_nonfinite says how many such steps in a row may be left out",
    )
