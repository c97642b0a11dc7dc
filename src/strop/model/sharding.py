"""Weights of which every process holds a part: torch's FSDP2 around the tree forward.

One unit a decoder layer, and one for all the rest: embeddings, final norm and head, which may share
weights. A unit is gathered where a forward or backward comes to it and dropped after it; its
gradient is added up over all processes, of which each keeps its part.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from strop.errors import ModelError
from strop.model.logprobs import bare, decoder_layers, layers_of
from strop.model.network import Network, Policy, ScalarNetwork
from strop.recipe.train.run import DistributedRecipe
from strop.types import Branch, Tree

IDLE = Tree((0,), (Branch((0,), (True,)),))
"""What a process reads that has nothing left to read while others have."""


def mesh_of(recipe: DistributedRecipe, processes: int, device: str) -> DeviceMesh:
    """How the processes are arranged: in a row, or in rows that hold the same parts."""
    if recipe.replicas is None:
        return init_device_mesh(device, (processes,), mesh_dim_names=("shard",))
    shape = (recipe.replicas, processes // recipe.replicas)
    return init_device_mesh(device, shape, mesh_dim_names=("replicate", "shard"))


def shard(network: Policy | ScalarNetwork, mesh: DeviceMesh, *, cpu_offload: bool = False) -> None:
    """Leave this process its part of the weights, on the mesh's devices (in host memory with
    `cpu_offload`). Every process makes this call with the same weights, before the optimizer.

    Raises `ModelError` where the decoder layers cannot be found.
    """
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
    with torch.no_grad(), network.arithmetic():
        read(network, IDLE)  # the first forward sets the units up
    if mesh.device_type != "cpu":
        # the model was read on a CPU; layers are gathered by their own forwards
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
    """Within it every process has all weights: forwards wait for nobody, so processes may make
    different numbers of them. The weights must not be changed. Every process enters and leaves.

    A model that is not sharded is always whole.
    """
    if not network.is_sharded:
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
    whole: torch.Tensor = there.full_tensor()
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
