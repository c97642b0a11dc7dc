"""Turning dropout off for good."""

from __future__ import annotations

import torch

RATES = ("attention_dropout", "attn_dropout", "dropout", "activation_dropout", "hidden_dropout")
"""Plain numbers that transformers' modules read as dropout rates."""


def switch_off_dropout(model: torch.nn.Module) -> None:
    """Set every dropout of a model to 0, in training mode as well.

    Methods that compare log-probs with older or reference ones would otherwise see dropout as a
    change of the policy.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in RATES:
            if isinstance(vars(module).get(name), float):
                setattr(module, name, 0.0)
