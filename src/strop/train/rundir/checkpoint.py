"""Checkpoints that are either whole or absent.

A snapshot copies everything a run carries; it is written to a temporary folder, flushed to disk,
listed with hashes in a manifest, renamed into place; only then does `latest` move. Optimizer state
and random streams are in it, so that a resumed run continues bit for bit.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from strop.distributed.processes import WritingGroup
from strop.errors import OutputError
from strop.files import flush, hashed_files, point, publish
from strop.model.network import Network
from strop.model.save import load_weights, save_network
from strop.train.loop.state import TrainState
from strop.train.rundir.parts import FOLDER, captured_parts, read_parts, read_weights, write_parts

Tensors = dict[str, torch.Tensor]

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run after a step, in host memory: `Snapshot(40, {"": (network, {...})},
    {"optimizer": {...}, "random": {"cpu": ...}}, {"position": {"shift": 0}})`.

    `networks` are written by `save_network` into the subfolder that is their key, `tensors` as
    `<key>.safetensors`. Of a sharded run, networks and optimizers are in `cut`: what this process
    holds of them.
    """

    step: int
    networks: Mapping[str, tuple[Network, Tensors]]
    tensors: Mapping[str, Tensors]
    parts: Mapping[str, Mapping[str, Any]]
    cut: Tensors | None = None


def capture(state: TrainState, random: Tensors, *, copy: bool = True) -> Snapshot:
    """What training changes, copied unless it is over, with the random streams `random`."""
    parts = {name: part.state() for name, part in state.parts().items()}
    if state.network.is_sharded:
        cut = captured_parts(state, copy=copy)
        return Snapshot(state.step, {}, {"random": random}, parts, cut)
    networks = {"": (state.network, _host_weights(state.network, copy))}
    tensors = {
        "optimizer": state.optimizer.tensors(copy=copy),
        "random": random,
    }
    if state.reference is not None:
        kept = state.reference.tensors()
        tensors["reference"] = {name: t.to("cpu", copy=copy) for name, t in kept.items()}
    if state.critic is not None:
        networks["critic"] = (state.critic.network, _host_weights(state.critic.network, copy))
        tensors["critic_optimizer"] = state.critic.optimizer.tensors(copy=copy)
    return Snapshot(state.step, networks, tensors, parts)


def write_checkpoint(
    snapshot: Snapshot,
    run: Path,
    *,
    keep: int,
    best: int | None = None,
    group: WritingGroup | None = None,
) -> None:
    """Write `checkpoint-<step>` under `run`, move `latest` (and `best` to the step `best`), remove
    all but the last `keep` and the best. Of a sharded run every process of `group` makes this
    call; the first one does all but the others' parts."""
    folder = run / f"checkpoint-{snapshot.step}"
    temporary = run / f".{folder.name}.tmp"
    first = group is None or group.rank == 0
    if first:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    if group is not None and snapshot.cut is not None:
        group.wait()  # until the folder is empty
        write_parts(snapshot.cut, temporary, group.processes)
    if not first:
        return
    for name, (network, weights) in snapshot.networks.items():
        save_network(network, temporary / name, weights)
    for name, tensors in snapshot.tensors.items():
        save_file(tensors, temporary / f"{name}.safetensors")
    carried = {"step": snapshot.step, "parts": snapshot.parts}
    (temporary / "trainer.json").write_text(json.dumps(carried))
    (temporary / MANIFEST).write_text(json.dumps(_manifest(temporary), indent=1))
    for log in run.glob("*.jsonl"):
        flush(log)  # its rows up to this step have to survive a power cut, too
    publish(temporary, folder)
    point(run / "latest", folder.name)
    mark_best(run, best)
    for old in checkpoints(run)[:-keep]:
        if step_of(old) != best:
            shutil.rmtree(old)


def mark_best(run: Path, step: int | None) -> None:
    """Point `best` at the checkpoint of this step; without one there is no `best`."""
    if step is None:
        (run / "best").unlink(missing_ok=True)
    else:
        point(run / "best", f"checkpoint-{step}")


def roll_back(run: Path, before: int) -> Path | None:
    """Drop the checkpoints of step `before` and later; the newest one left becomes the latest."""
    left = [c for c in checkpoints(run) if step_of(c) < before]
    if left:
        point(run / "latest", left[-1].name)
    else:
        (run / "latest").unlink(missing_ok=True)
    for later in checkpoints(run):
        if later not in left:
            shutil.rmtree(later)
    return left[-1] if left else None


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run by step, whatever their modification times."""
    found = (p for p in run.glob("checkpoint-*") if p.name.rsplit("-", 1)[1].isdigit())
    return sorted(found, key=step_of)


def newest_whole(run: Path) -> Path | None:
    """The newest undamaged checkpoint, up to `latest`; `None` if none was ever finished. Warns of
    every damaged one; raises `OutputError` if all are damaged."""
    pointer = run / "latest"
    if not pointer.is_symlink():
        return None
    latest = run / os.readlink(pointer)
    found = [c for c in checkpoints(run) if step_of(c) < step_of(latest)]
    problems = []
    for folder in (latest, *reversed(found)):
        try:
            verify(folder)
        except OutputError as error:
            problems.append(f"{folder.name}: {error.problem}")
            continue
        for problem in problems:
            warnings.warn(
                f"DAMAGED CHECKPOINT {problem}. The run goes on from {folder.name}, and the steps "
                "after it are made again",
                stacklevel=2,
            )
        return folder
    raise OutputError(
        f"no checkpoint is whole ({'; '.join(problems)})",
        where=str(run),
        fix="put an undamaged copy back, or pass --overwrite to start again",
    )


def restore(state: TrainState, folder: Path, rank: int = 0) -> None:
    """Load everything `write_checkpoint` wrote into the same state. A process that was not there
    when it was written keeps its random streams.

    Raises `OutputError` for a checkpoint of another model.
    """
    try:
        if (folder / FOLDER).is_dir():
            read_parts(state, folder)
        else:
            _read_whole(state, folder)
    except (RuntimeError, FileNotFoundError) as error:
        raise OutputError(
            f"the checkpoint does not fit the model: {str(error).splitlines()[-1].strip()}",
            where=str(folder),
            fix="resume with the model the run began with, or pass --overwrite to start again",
        ) from None
    streams = load_file(folder / "random.safetensors")
    for name, put in (("cpu", torch.set_rng_state), ("cuda", torch.cuda.set_rng_state)):
        kept = streams.get(_stream(rank, name))
        if kept is not None:
            put(kept)
    carried = json.loads((folder / "trainer.json").read_text())
    state.step = int(carried["step"])
    state.loaded += 1
    for name, part in state.parts().items():
        part.load(carried["parts"][name])


def load_network(network: Network, folder: Path) -> None:
    """Load the policy's weights alone."""
    if (folder / FOLDER).is_dir():
        read_weights(network, folder)
    else:
        load_weights(network, folder)


def _read_whole(state: TrainState, folder: Path) -> None:
    """Load what one process wrote of networks, optimizers and reference."""
    load_weights(state.network, folder)
    state.optimizer.load_tensors(load_file(folder / "optimizer.safetensors"))
    if state.reference is not None:
        state.reference.load_tensors(load_file(folder / "reference.safetensors"))
    if state.critic is not None:
        load_weights(state.critic.network, folder / "critic")
        tensors = load_file(folder / "critic_optimizer.safetensors")
        state.critic.optimizer.load_tensors(tensors)


def random_states() -> Tensors:
    """The current states of torch's random streams."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def by_process(streams: Sequence[Tensors]) -> Tensors:
    """The random streams of all processes, by rank, under names of their own."""
    return {
        _stream(rank, name): state
        for rank, one in enumerate(streams)
        for name, state in one.items()
    }


def _stream(rank: int, name: str) -> str:
    return f"{rank}/{name}" if rank else name


def step_of(checkpoint: Path | None) -> int:
    """The step of a checkpoint; 0 without one."""
    return 0 if checkpoint is None else int(checkpoint.name.rsplit("-", 1)[1])


def verify(checkpoint: Path) -> None:
    """Raise `OutputError` naming the first file that differs from the manifest."""
    try:
        expected = json.loads((checkpoint / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise OutputError(f"the manifest cannot be read: {error}", where=str(checkpoint)) from None
    if not isinstance(expected, dict):
        raise OutputError("the manifest is no table of files", where=str(checkpoint))
    found = _manifest(checkpoint)
    for name, entry in expected.items():
        if found.get(name) != entry:
            raise OutputError(
                f"{name} is {'damaged' if name in found else 'missing'}",
                where=str(checkpoint),
                fix="delete this checkpoint and resume from the one before",
            )


def _manifest(checkpoint: Path) -> dict[str, dict[str, Any]]:
    """sha256 and size of every file of a checkpoint but the manifest itself."""
    files = sorted(checkpoint.rglob("*"))
    return hashed_files(checkpoint, (f for f in files if f.is_file() and f.name != MANIFEST))


def _host_weights(network: Network, copy: bool) -> Tensors:
    """The state dict in host memory; frozen weights are not copied, tied ones stay one tensor."""
    model = network.model
    named = model.named_parameters(remove_duplicate=False)
    frozen = {name for name, p in named if not p.requires_grad}
    copies: dict[tuple[int, torch.Size], torch.Tensor] = {}
    weights = {}
    for name, tensor in model.state_dict().items():
        if name not in frozen and isinstance(tensor, torch.Tensor):
            key = (tensor.data_ptr(), tensor.shape)
            if key not in copies:
                copies[key] = tensor.to("cpu", copy=copy)
            tensor = copies[key]
        weights[name] = tensor
    return weights
