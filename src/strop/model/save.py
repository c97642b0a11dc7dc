"""Saves and loads weights, as folders that transformers or peft can load without strop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from strop.errors import ModelError
from strop.model.adapters import adapter_tensors, name_base, own_adapter, put_adapter
from strop.model.logprobs import bare
from strop.model.network import Network, Policy
from strop.model.sharding import gathered, held_weights, part_like


def save_network(
    network: Network, folder: Path, weights: dict[str, torch.Tensor] | None = None
) -> None:
    """Write weights as safetensors (only the adapter for a peft model), config and tokenizer;
    `weights` is a state dict to write in place of the network's current one. A peft model may hold
    a teacher's adapter, too, which is not written."""
    model = network.model
    # by its name: a checkpoint is written while the model may be reading as the teacher
    own = {"selected_adapters": [own_adapter(model)]} if network.is_adapter else {}
    model.save_pretrained(folder, state_dict=weights, safe_serialization=True, **own)
    network.tokenizer.save_pretrained(folder)
    if network.is_adapter:
        name_base(folder)
    if isinstance(network, Policy) and network.is_adapter:
        bare(network.model).generation_config.save_pretrained(folder)


def load_weights(network: Network, folder: Path) -> None:
    """Load weights that `save_network` wrote into the same network."""
    if network.is_adapter:
        adapter = load_file(folder / "adapter_model.safetensors")
        if network.is_sharded:
            _put(adapter, adapter_tensors(network.model))
        else:
            put_adapter(network.model, adapter)
        return
    state: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        state |= load_file(file)
    if state.keys() - network.model.state_dict().keys():
        state = _converted(network.model, folder)
    own = network.model.state_dict()
    wrong = [name for name in state if name not in own or own[name].shape != state[name].shape]
    if wrong or not state:
        # seen before the first one is loaded: half of them would make a third model
        problem = f"unknown weights {wrong[:3]}" if state else "there are no whole weights"
        raise ModelError(problem, where=str(folder))
    # tied weights are written once, so names may be missing
    if network.is_sharded:
        _put(state, own)
        return
    network.model.load_state_dict(state, strict=False)


@torch.no_grad()
def _put(whole: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> None:
    """Copy into each of `own` this process's part of the tensor of its name."""
    for name, tensor in whole.items():
        own[name].copy_(part_like(tensor, own[name]))


def _converted(model: Any, folder: Path) -> dict[str, torch.Tensor]:
    """Saved weights by the model's own names: transformers writes the experts of a mixture one by
    one, and holds them as one tensor."""
    loaded, found = type(model).from_pretrained(
        folder, dtype="auto", use_safetensors=True, output_loading_info=True
    )
    unknown = sorted(found["unexpected_keys"])
    if unknown:
        raise ModelError(f"unknown weights {unknown[:3]}", where=str(folder))
    state: dict[str, torch.Tensor] = loaded.state_dict()
    return state


def gathered_weights(network: Network, *, keep: bool) -> dict[str, torch.Tensor]:
    """The whole of what is saved of a sharded network, gathered tensor by tensor; who does not
    `keep` them gets none. Full models come in the recipe's arithmetic precision."""
    halve = network.bfloat16 and not network.is_adapter
    weights = {}
    for name, tensor in held_weights(network).items():
        whole = gathered(tensor)
        if keep:
            kind = torch.bfloat16 if halve and whole.is_floating_point() else whole.dtype
            weights[name] = whole.to("cpu", kind)
    return weights


def save_final(
    network: Network, folder: Path, weights: dict[str, torch.Tensor] | None = None
) -> None:
    """Like `save_network`, but full models are written in the recipe's arithmetic precision.
    `weights` are those of a sharded network, from `gathered_weights`."""
    if weights is not None:
        save_network(network, folder, weights)
        return
    if not network.bfloat16 or network.is_adapter:
        save_network(network, folder)
        return
    halved = {
        name: tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
        for name, tensor in network.model.state_dict().items()
    }
    network.model.save_pretrained(folder, state_dict=halved, safe_serialization=True)
    network.tokenizer.save_pretrained(folder)
