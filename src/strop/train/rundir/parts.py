"""The part of a checkpoint that every process of a sharded run writes, and any number reads.

torch.distributed.checkpoint puts into one folder what each process holds, and an index of it. All
processes have to see the same file system.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from strop.errors import ModelError
from strop.model.network import Network
from strop.model.sharding import held_weights
from strop.train.loop.optim import Optimizers
from strop.train.loop.state import TrainState

dcp: Any = torch.distributed.checkpoint
"""It does not say to a type checker what it exports."""

FOLDER = "parts"

Tensors = dict[str, torch.Tensor]


def captured_parts(state: TrainState, *, copy: bool) -> Tensors:
    """What this process holds of networks, optimizers and a moving reference, in host memory:
    `{"policy/lm_head.weight": ..., "optimizer/0.3.exp_avg": ...}`."""
    held: Tensors = {}
    for name, (network, optimizer) in _trained(state).items():
        held |= _under(name, held_weights(network))
        held |= _under(f"{name}_optimizer", optimizer.tensors(copy=copy))
    if state.reference is not None:
        held |= _under("reference", state.reference.tensors())
    moments = [name for name in held if name.split("/")[0].endswith("_optimizer")]
    return {
        name: tensor if name in moments else tensor.to("cpu", copy=copy)
        for name, tensor in held.items()
    }


def write_parts(tensors: Tensors, folder: Path, group: Any) -> None:
    """Write this process's parts, flushed to disk; returns when all processes of `group` have.

    Raises `OSError` on all of them where one cannot write.
    """
    writer = dcp.FileSystemWriter(folder / FOLDER, sync_files=True)
    try:
        dcp.save(tensors, storage_writer=writer, process_group=group)
    except CheckpointException as error:
        said = [f"process {rank}: {failure}" for rank, (failure, _) in error.failures.items()]
        raise OSError("; ".join(said)) from None


def read_parts(state: TrainState, folder: Path) -> None:
    """Load this process's parts of what `write_parts` wrote, however many processes did.

    Raises `ModelError` for a checkpoint of another model.
    """
    reader = dcp.FileSystemReader(folder / FOLDER)
    saved = _saved(reader)
    wanted: Tensors = {}
    for name, (network, optimizer) in _trained(state).items():
        weights = _under(name, held_weights(network))
        _expect_equal(weights, saved, f"{name}/")
        wanted |= weights
        wanted |= _moments(optimizer, saved, f"{name}_optimizer/")
    if state.reference is not None:
        wanted |= _under("reference", state.reference.tensors())
    dcp.load(wanted, storage_reader=reader, no_dist=True)
    for name, (_, optimizer) in _trained(state).items():
        prefix = f"{name}_optimizer/"
        own = {n.removeprefix(prefix): t for n, t in wanted.items() if n.startswith(prefix)}
        optimizer.load_tensors(own)


def read_weights(network: Network, folder: Path) -> None:
    """Load this process's part of the policy's weights alone."""
    reader = dcp.FileSystemReader(folder / FOLDER)
    weights = _under("policy", held_weights(network))
    _expect_equal(weights, _saved(reader), "policy/")
    dcp.load(weights, storage_reader=reader, no_dist=True)


def _saved(reader: Any) -> dict[str, TensorStorageMetadata]:
    """Size and type of every saved tensor."""
    entries = reader.read_metadata().state_dict_metadata.items()
    return {n: entry for n, entry in entries if isinstance(entry, TensorStorageMetadata)}


def _trained(state: TrainState) -> dict[str, tuple[Network, Optimizers]]:
    trained = {"policy": (state.network, state.optimizer)}
    if state.critic is not None:
        trained["critic"] = (state.critic.network, state.critic.optimizer)
    return trained


def _under(prefix: str, tensors: Tensors) -> Tensors:
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def _moments(
    optimizer: Optimizers, saved: dict[str, TensorStorageMetadata], prefix: str
) -> Tensors:
    """Room for the saved state of an optimizer: a parameter's moments are cut like itself."""
    room: Tensors = {}
    for name, entry in saved.items():
        if name.startswith(prefix):
            parameter = optimizer.parameter_of(name.removeprefix(prefix))
            kind = entry.properties.dtype
            room[name] = (
                torch.zeros_like(parameter, dtype=kind, requires_grad=False)
                if entry.size == parameter.shape
                else torch.zeros(entry.size, dtype=kind)
            )
    return room


def _expect_equal(own: Tensors, saved: dict[str, TensorStorageMetadata], prefix: str) -> None:
    there = {name: entry.size for name, entry in saved.items() if name.startswith(prefix)}
    here = {name: tensor.shape for name, tensor in own.items()}
    wrong = [name for name in here | there if here.get(name) != there.get(name)]
    if wrong:
        raise ModelError(f"other weights {[name.removeprefix(prefix) for name in wrong[:3]]}")
