"""Weights of which every process holds a part: torch's FSDP2 around the tree forward.

One unit a decoder layer, and one for all the rest: embeddings, final norm and head, which may share
weights. A unit is gathered where a forward or backward comes to it and dropped after it; its
gradient is added up over all processes, of which each keeps its part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor

from strop.distributed.processes import SHARD
from strop.errors import ModelError
from strop.model.adapters import with_plain_weights
from strop.model.logprobs import bare, decoder_layers, eval_mode, layers_of
from strop.model.network import Network, Policy, ScalarNetwork
from strop.recipe.train.run import DistributedRecipe
from strop.types import Branch, Tree

TENSOR = "tensor"
"""The dimension of a device mesh over which matrices are computed in parts."""

IDLE = Tree((0,), (Branch((0,), (True,)),))
"""What a process reads that has nothing left to read while others have."""


@dataclass(frozen=True, slots=True)
class Cut:
    """How a model is cut while it is read: `Cut(mesh_of(recipe, 4, "cpu"))`."""

    mesh: DeviceMesh
    cpu_offload: bool = False


@dataclass(frozen=True, slots=True)
class Late:
    """A weight that is still in its file: `Late(layer, "weight", whole)`. `whole` is the mapped
    file, in a narrower type; in the model stands memory that nothing was written to."""

    module: torch.nn.Module
    name: str
    whole: torch.Tensor


def mesh_of(recipe: DistributedRecipe, processes: int, device: str) -> DeviceMesh:
    """How the processes are arranged: in rows that hold the same parts, those in tensor groups
    whose processes are neighbours. Dimensions that the recipe does not ask for are left out."""
    replicas = recipe.replicas or 1
    sizes = {"replicate": replicas, SHARD: processes // replicas // recipe.tensor}
    if recipe.shard == "none":
        sizes = {"replicate": processes // recipe.tensor}
    kept = SHARD if recipe.shard != "none" else None
    sizes = {name: size for name, size in sizes.items() if size > 1 or name == kept}
    if recipe.tensor > 1:
        sizes[TENSOR] = recipe.tensor
    return init_device_mesh(device, tuple(sizes.values()), mesh_dim_names=tuple(sizes))


def shard(
    network: Policy | ScalarNetwork,
    mesh: DeviceMesh,
    *,
    cpu_offload: bool = False,
    late: Sequence[Late] = (),
) -> None:
    """Leave this process its part of the weights, on the mesh's devices (in host memory with
    `cpu_offload`), and of those that come `late`, read it. Every process makes this call with the
    same weights, before the optimizer.

    Raises `ModelError` where the decoder layers cannot be found.
    """
    with_plain_weights(network.model, mesh.device_type)
    # pinned, so that copies to the device overlap with its work
    offload = CPUOffloadPolicy() if cpu_offload else OffloadPolicy()
    units = list(_layers(network))
    for layer in units:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, offload_policy=offload)
    root: Any = fully_shard(
        network.score, mesh=mesh, reshard_after_forward=False, offload_policy=offload
    )
    for unit in (*units, root):
        # a loss is divided by counts of all processes, so its gradients only have to be added up
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)
    # a part of the model that one process does not use may be used by another
    root.set_reduce_scatter_unused_params(True)
    root.register_forward_hook(_drop_after_reading)
    with torch.no_grad():
        for weight in late:
            parameter = weight.module.get_parameter(weight.name)
            own_part(parameter).copy_(weight.whole[own_rows(parameter)])
    with torch.no_grad(), eval_mode(network.model), network.arithmetic():
        read(network, IDLE)  # the first forward sets the units up
    # how attention is computed is chosen where the weights are now: elsewhere than they were read,
    # or nowhere before; layers are gathered by their own forwards
    root.unshard()
    network.score.find_way(bfloat16=network.bfloat16)
    root.reshard()


def read(network: Network, tree: Tree) -> torch.Tensor:
    """A forward through all weights: log-probs of a tree, or its scores."""
    if isinstance(network, Policy):
        return network.score((tree,)).logprobs_N
    assert isinstance(network, ScalarNetwork)
    return network.score.finals((tree,))


def _layers(network: Network) -> Iterator[torch.nn.Module]:
    """The decoder layers, in order."""
    model = bare(network.model)
    found = layers_of(model)
    if found is None:
        raise ModelError(
            f"the {decoder_layers(model)} decoder layers of {type(model).__name__} cannot be "
            "found, so it cannot be sharded",
            fix="set run.distributed.shard to none",
        )
    return iter(found)


def _drop_after_reading(root: Any, given: Any, result: Any) -> None:
    """Drop what the root unit gathered where no backward will: else an optimizer's step would
    leave the next forward with old weights."""
    if not torch.is_grad_enabled() and not _is_whole(root):
        root.reshard()


def _is_whole(root: torch.nn.Module) -> bool:
    """Whether all units are gathered, and stay so."""
    return not any(isinstance(p, DTensor) for p in root.parameters())


@contextmanager
def whole_weights(network: Network) -> Iterator[None]:
    """Within it every data rank has all weights: its forwards wait for no other, so data ranks may
    make different numbers of them; the processes of a tensor group make the same. The weights must
    not be changed. Every process enters and leaves.

    A model that is not sharded is always whole.
    """
    if not isinstance(_root(network), FSDPModule):
        yield
        return
    root: Any = _root(network)
    units: list[Any] = [module for module in root.modules() if isinstance(module, FSDPModule)]
    root.set_reshard_after_forward(False)
    for unit in units:
        unit.unshard()
    try:
        yield
    finally:
        root.set_reshard_after_forward(True)
        root.set_reshard_after_forward(False, recurse=False)
        for unit in units:
            unit.reshard()


def _root(network: Network) -> torch.nn.Module:
    assert isinstance(network, Policy | ScalarNetwork)
    return network.score


def own_part(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a tensor that this process holds, sharing its memory: all of it, unless it is
    sharded."""
    own: Any = tensor.detach()
    part: torch.Tensor = own.to_local() if isinstance(own, DTensor) else own
    return part


def own_rows(parameter: torch.Tensor) -> slice:
    """Which rows of a sharded weight this process holds: the second of two processes `slice(3, 5)`
    of five."""
    assert isinstance(parameter, DTensor)
    mesh = parameter.device_mesh
    each = -(-parameter.shape[0] // mesh.size(mesh.ndim - 1))
    start = min(each * mesh.get_local_rank(mesh.ndim - 1), parameter.shape[0])
    return slice(start, start + own_part(parameter).shape[0])


def part_like(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """`whole`, which every process has, cut as `like` is."""
    if not isinstance(like, DTensor) or isinstance(whole, DTensor):
        return whole
    mesh = like.device_mesh
    cut = distribute_tensor(whole.to(mesh.device_type), mesh, like.placements, src_data_rank=None)
    return cut.to(like.device)


def gathered(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor of which this process may hold a part; every process asks."""
    if not isinstance(tensor, DTensor):
        return tensor
    there: Any = tensor.to(tensor.device_mesh.device_type)
    for dimension in range(there.device_mesh.ndim):
        # shards are parts of what a tensor group divides, so they are put together first
        placements = list(there.placements)
        placements[dimension] = Replicate()
        there = there.redistribute(placements=placements)
    whole: torch.Tensor = there.to_local()
    return whole


def held_weights(network: Network) -> dict[str, torch.Tensor]:
    """What a checkpoint keeps of a network, by the model's names: of an adapter what is trained,
    else all; tied weights once. The tensors are the network's own."""
    model = network.model
    once = dict(model.named_parameters())
    every = dict(model.named_parameters(remove_duplicate=False))
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if (name in once and (once[name].requires_grad or not network.is_adapter))
        or (name not in every and not network.is_adapter)
    }
