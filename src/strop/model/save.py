"""Weights to disk and back, as folders that transformers or peft load without us."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file

from strop.errors import ModelError
from strop.model.load import Policy


def save_policy(policy: Policy, folder: Path) -> None:
    """Weights as safetensors (the adapter alone for a peft model), config and tokenizer."""
    policy.model.save_pretrained(folder, safe_serialization=True)
    policy.tokenizer.save_pretrained(folder)


def load_weights(policy: Policy, folder: Path) -> None:
    """Put weights written by `save_policy` back into the same policy."""
    if policy.is_adapter:
        set_peft_model_state_dict(policy.model, load_file(folder / "adapter_model.safetensors"))
        return
    state: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        state |= load_file(file)
    # tied weights are written once, so names may be missing, never unknown
    unknown = policy.model.load_state_dict(state, strict=False).unexpected_keys
    if unknown:
        raise ModelError(f"unknown weights {unknown[:3]}", where=str(folder))


def save_final(policy: Policy, folder: Path) -> None:
    """As `save_policy`, full models in the recipe's arithmetic precision."""
    if not policy.bfloat16 or policy.is_adapter:
        save_policy(policy, folder)
        return
    halved = {
        name: tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
        for name, tensor in policy.model.state_dict().items()
    }
    policy.model.save_pretrained(folder, state_dict=halved, safe_serialization=True)
    policy.tokenizer.save_pretrained(folder)
