"""Checks for disk space before the first step, not after the last."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from strop.errors import OutputError, TrainingError
from strop.model.network import Network
from strop.recipe.train.methods import Recipe
from strop.train.loop.state import TrainState
from strop.train.rundir.checkpoint import checkpoints

MOMENTS = 2
"""AdamW's state holds this many copies of the trained weights (Muon's is smaller)."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def refuse_full(state: TrainState, recipe: Recipe, folder: Path, total: int) -> None:
    """Raise `OutputError` when the disk has no room for the checkpoints and the final model."""
    needed, free = needed_bytes(state, recipe, folder, total), shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"the run needs about {_said(needed)} on this disk and {_said(free)} are free",
            where=str(folder),
            fix=f"make room, lower run.keep_checkpoints (now {recipe.run.keep_checkpoints}), or "
            "choose an `output` on another disk",
        )


def needed_bytes(state: TrainState, recipe: Recipe, folder: Path, total: int) -> int:
    """Bytes that the run will add to the folder at its peak: the kept checkpoints, the best one,
    the one being written and the final model, less what is there already."""
    every = recipe.run.save_every
    written = (total // every if every else 0) + 1
    if recipe.dev is not None:
        written += total // recipe.dev.every
    kept = recipe.run.keep_checkpoints + 1 + (recipe.dev is not None)
    there = sum(file.stat().st_size for c in checkpoints(folder) for file in c.rglob("*"))
    needed = checkpoint_bytes(state) * min(written, kept) + saved_bytes(state.network)
    return max(0, needed - there)


def checkpoint_bytes(state: TrainState) -> int:
    """Bytes of one checkpoint: the saved weights and the optimizers' moments."""
    size = saved_bytes(state.network) + MOMENTS * trained_bytes(state.network)
    if state.critic is not None:
        critic = state.critic.network
        size += saved_bytes(critic) + MOMENTS * trained_bytes(critic)
    if state.reference is not None:
        size += trained_bytes(state.network)
    return size


def saved_bytes(network: Network) -> int:
    """Bytes that are saved of a network: all of a full model, only the trained weights of an
    adapter."""
    if network.is_adapter:
        return trained_bytes(network)
    return sum(p.numel() * p.element_size() for p in network.model.parameters())


def trained_bytes(network: Network) -> int:
    return sum(p.numel() * p.element_size() for p in network.trainable())


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk inside the block into a `TrainingError` that says how to resume."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise TrainingError(
            f"the disk is full: {error}",
            where=str(folder),
            fix="make room, then go on with --resume",
        ) from error


def _said(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
