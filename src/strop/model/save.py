"""A policy -> a folder that transformers or peft loads, with nothing of ours in it."""

from __future__ import annotations

from pathlib import Path

import torch

from strop.model.load import Policy


def save_policy(policy: Policy, folder: Path) -> None:
    """Weights as safetensors (the adapter alone for a peft model), config and tokenizer."""
    policy.model.save_pretrained(folder, safe_serialization=True)
    policy.tokenizer.save_pretrained(folder)


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
