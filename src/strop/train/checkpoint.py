"""Checkpoints that are whole or not there.

Written to a temporary folder, flushed to disk, listed with hashes in a manifest, renamed into
place; only then does `latest` move. Optimizer state and random streams are in it, so that a
resumed run continues bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from strop.errors import OutputError
from strop.model.save import load_weights, save_network
from strop.train.step import TrainState

MANIFEST = "manifest.json"


def save_checkpoint(state: TrainState, run: Path, *, keep: int) -> Path:
    """Write `checkpoint-<step>` under `run`, move `latest`, remove all but the last `keep`."""
    folder = run / f"checkpoint-{state.step}"
    temporary = run / f".{folder.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_network(state.network, temporary)
    save_file(state.optimizer.tensors(), temporary / "optimizer.safetensors")
    if state.reference is not None:
        save_file(state.reference.tensors(), temporary / "reference.safetensors")
    if state.critic is not None:
        save_network(state.critic.network, temporary / "critic")
        save_file(state.critic.optimizer.tensors(), temporary / "critic_optimizer.safetensors")
    save_file(_random_states(), temporary / "random.safetensors")
    carried = {"step": state.step, "running": state.running}
    (temporary / "trainer.json").write_text(json.dumps(carried))
    (temporary / MANIFEST).write_text(json.dumps(manifest(temporary), indent=1))
    publish(temporary, folder)
    _point_latest(run, folder.name)
    for old in sorted(run.glob("checkpoint-*"), key=step_of)[:-keep]:
        shutil.rmtree(old)
    return folder


def roll_back(run: Path, before: int) -> Path | None:
    """Drop the checkpoints of step `before` and later; the newest one left becomes the latest."""
    left = [c for c in sorted(run.glob("checkpoint-*"), key=step_of) if step_of(c) < before]
    if left:
        _point_latest(run, left[-1].name)
    else:
        (run / "latest").unlink(missing_ok=True)
    for later in run.glob("checkpoint-*"):
        if later not in left:
            shutil.rmtree(later)
    return left[-1] if left else None


def manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """sha256 and size of every file of a folder, by relative name."""
    listed = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.name != MANIFEST:
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            listed[str(file.relative_to(folder))] = {
                "sha256": digest,
                "size": file.stat().st_size,
            }
    return listed


def publish(temporary: Path, folder: Path) -> None:
    """Flush every file, then rename the folder into place and flush the rename."""
    for file in temporary.rglob("*"):
        if file.is_file():
            file.chmod(0o644)  # safetensors writes for its owner alone
            _flush(file)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)
    _flush(folder.parent)


def latest_checkpoint(run: Path) -> Path | None:
    """The checkpoint `latest` points to, verified; `None` where no checkpoint was finished."""
    pointer = run / "latest"
    if not pointer.is_symlink():
        return None
    folder = run / os.readlink(pointer)
    verify(folder)
    return folder


def verify(folder: Path) -> None:
    """Raise `OutputError` naming the first file that is not what the manifest says."""
    try:
        expected = json.loads((folder / MANIFEST).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise OutputError(f"the manifest cannot be read: {error}", where=str(folder)) from None
    found = manifest(folder)
    for name, entry in expected.items():
        if found.get(name) != entry:
            raise OutputError(
                f"{name} is {'damaged' if name in found else 'missing'}",
                where=str(folder),
                fix="delete this checkpoint and resume from the one before",
            )


def restore(state: TrainState, folder: Path) -> None:
    """Load everything `save_checkpoint` wrote into the same state."""
    load_weights(state.network, folder)
    state.optimizer.load_tensors(load_file(folder / "optimizer.safetensors"))
    if state.reference is not None:
        state.reference.load_tensors(load_file(folder / "reference.safetensors"))
    if state.critic is not None:
        load_weights(state.critic.network, folder / "critic")
        tensors = load_file(folder / "critic_optimizer.safetensors")
        state.critic.optimizer.load_tensors(tensors)
    streams = load_file(folder / "random.safetensors")
    torch.set_rng_state(streams["cpu"])
    if "cuda" in streams:
        torch.cuda.set_rng_state(streams["cuda"])
    carried = json.loads((folder / "trainer.json").read_text())
    state.step = int(carried["step"])
    state.running.update(carried["running"])  # in place: the method holds the same dict


def _random_states() -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _point_latest(run: Path, name: str) -> None:
    temporary = run / ".latest.tmp"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(name)
    os.replace(temporary, run / "latest")
    _flush(run)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def step_of(checkpoint: Path | None) -> int:
    """How many steps a checkpoint holds; none at all without one."""
    return 0 if checkpoint is None else int(checkpoint.name.rsplit("-", 1)[1])
