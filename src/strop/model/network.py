"""A model in training, with its tokenizer, its precision and its tree scorer."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from strop.model.logprobs import TreeScorer, bare
from strop.model.scalar import ScalarScorer

RATES = ("attention_dropout", "attn_dropout", "dropout", "activation_dropout", "hidden_dropout")
"""Plain numbers that transformers' modules read as dropout rates."""


@dataclass(frozen=True, slots=True)
class Network:
    """`model` is the transformers model or the peft model around it. Trained parameters are
    float32; with `bfloat16` the arithmetic runs under autocast."""

    model: Any
    tokenizer: Any
    bfloat16: bool

    @property
    def device(self) -> torch.device:
        """Where forwards are computed."""
        first = next(self.model.parameters())
        if isinstance(first, DTensor):
            return torch.device(first.device_mesh.device_type)
        return torch.device(bare(self.model).device)

    def arithmetic(self) -> AbstractContextManager[Any]:
        """The precision forwards run in."""
        if not self.bfloat16:
            return nullcontext()
        # of weights that are gathered and dropped, no copy may stay until the forward's end
        keep = not self.is_sharded
        return torch.autocast(self.device.type, dtype=torch.bfloat16, cache_enabled=keep)

    def trainable(self) -> list[torch.nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    @property
    def is_sharded(self) -> bool:
        """Whether several processes hold a part of the weights each."""
        return any(isinstance(p, DTensor) for p in self.model.parameters())

    @property
    def is_adapter(self) -> bool:
        return bare(self.model) is not self.model


@dataclass(frozen=True, slots=True)
class Policy(Network):
    """A causal LM: `score` gives the log-probs of trees."""

    score: TreeScorer


@dataclass(frozen=True, slots=True)
class ScalarNetwork(Network):
    """A sequence classifier with one label: a reward model, or PPO's critic."""

    score: ScalarScorer


def switch_off_dropout(model: torch.nn.Module) -> None:
    """Set every dropout of a model to 0, so that training mode has none either.

    Dropout would otherwise look like a change of the policy to methods that compare log-probs with
    older or reference ones.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in RATES:
            if isinstance(vars(module).get(name), float):
                setattr(module, name, 0.0)
