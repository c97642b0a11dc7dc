"""Resuming a run: from which checkpoint, and whether its recipe and inputs are unchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.errors import OutputError
from strop.recipe.train.methods import Recipe
from strop.train.rundir.checkpoint import checkpoints, newest_whole, roll_back, step_of, verify
from strop.train.rundir.directory import (
    changed_inputs,
    changed_keys,
    clear,
    has_begun,
    is_finished,
    refuse_changed,
    refuse_stopped,
    reopen,
    write_resumed,
)
from strop.train.rundir.parts import FOLDER
from strop.train.rundir.replaced import set_aside


def checkpoint_to_resume(folder: Path, asked: Path | None) -> Path | None:
    """The checkpoint to resume from: `asked`, which has to be whole and of this run, or the
    newest."""
    if asked is None:
        return newest_whole(folder)
    checkpoint = folder / asked.resolve().name
    if checkpoint not in checkpoints(folder) or not checkpoint.samefile(asked):
        names = ", ".join(c.name for c in checkpoints(folder)) or "none"
        raise OutputError(
            f"is no checkpoint of the run in {folder}", where=str(asked), fix=f"it has {names}"
        )
    verify(checkpoint)
    if is_finished(folder):
        # what the processes of a sharded run wrote is no model folder
        model = "its final/" if (checkpoint / FOLDER).is_dir() else "this checkpoint"
        raise OutputError(
            "the run is finished",
            where=str(folder),
            fix=f"begin another run with `model.path` at {model}, or pass --overwrite",
        )
    return checkpoint


@dataclass(frozen=True, slots=True)
class Start:
    """Where a run starts: `Start(Path("runs/sft/checkpoint-40"), finished=False)`."""

    checkpoint: Path | None
    finished: bool


def find_start(
    recipe: Recipe,
    inputs: Mapping[str, Any],
    total: int,
    *,
    asked: Path | None,
    force_resume: bool,
) -> Start:
    """Where a resumed run of `total` steps goes on: from the checkpoint `asked` for, or the newest;
    or nowhere, because it is finished."""
    folder = Path(recipe.output)
    finished = asked is None and is_finished(folder)
    if finished and force_resume:
        finished = not changes(recipe, inputs)
    if finished:
        return Start(None, finished=True)
    checkpoint = checkpoint_to_resume(folder, asked)
    refuse_nothing_left(folder, total, checkpoint)
    return Start(checkpoint, finished=False)


def refuse_nothing_left(folder: Path, total: int, checkpoint: Path | None) -> None:
    """Raise `OutputError` if no step is left to make, or a finished run has no checkpoint. A run
    that was killed after its last step still has its final model to write."""
    if checkpoint is None and is_finished(folder):
        raise OutputError(
            "the run is finished and has no checkpoint left to resume from",
            where=str(folder),
            fix="begin another run with `model.path` at its final/, or pass --overwrite",
        )
    done = step_of(checkpoint)
    if total < done or (total == done and is_finished(folder)):
        raise OutputError(
            f"the run has made {done} steps and the recipe asks for {total}, so there is no "
            "step left to make",
            where=str(folder),
            fix="raise run.steps or run.epochs, or pass --overwrite to start again",
        )


def changes(recipe: Recipe, inputs: Mapping[str, Any]) -> list[str]:
    """Recipe values and inputs that differ from those the run in this folder began with."""
    folder = Path(recipe.output)
    return [*changed_keys(folder, recipe), *changed_inputs(folder, inputs)]


def prepare_folder(
    recipe: Recipe, inputs: Mapping[str, Any], *, resume: bool, force_resume: bool
) -> list[str] | None:
    """Free the folder for a new run and return `None`; or check that a run may be resumed and
    return the changes that `force_resume` accepts. Without it, raises `OutputError` for changed
    inputs. Writes nothing into the folder of a resumed run."""
    folder = Path(recipe.output)
    if not has_begun(folder):
        clear(folder)
        return None
    if not resume:
        set_aside(folder)
        return None
    refuse_stopped(folder)
    if force_resume:
        return changes(recipe, inputs)
    refuse_changed(folder, inputs)
    return []


def mark_resumed(folder: Path, checkpoint: Path | None, changed: Sequence[str]) -> None:
    """Mark the folder as a running run's again, after its checkpoint was loaded."""
    write_resumed(folder, step_of(checkpoint), changed)
    reopen(folder)
    roll_back(folder, step_of(checkpoint) + 1)
