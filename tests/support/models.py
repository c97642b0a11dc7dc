"""Tiny models, and an optimizer that only looks."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from strop.demo.model import raw_model
from strop.model.sharding import gathered
from strop.train.loop.optim import Optimizers


def sharp_model(tokenizer: Any, width: int = 32, std: float = 0.2) -> Any:
    """A Qwen3 of three layers with larger weights than at birth: sharper, less forgiving."""
    model = raw_model(tokenizer, seed=0, width=width)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=std)
    return model


def bos_tokenizer(tokenizer: Any) -> PreTrainedTokenizerFast:
    """The same tokenizer, which puts `<|user|>` (id 2) before every text as its BOS."""
    backend = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    backend.post_processor = TemplateProcessing(
        single="<|user|> $A", special_tokens=[("<|user|>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|user|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
        chat_template=tokenizer.chat_template,
        model_max_length=128,
    )


class Recorder(Optimizers):
    """Keeps the gradients of an update, whole ones, and leaves the weights alone."""

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        super().__init__([torch.optim.SGD(parameters, lr=0.0)])
        self.parameters = parameters
        self.seen: list[torch.Tensor] = []

    def step(self, learning_rate: float) -> None:
        gradients = [
            gathered(torch.zeros_like(p) if p.grad is None else p.grad.clone())
            for p in self.parameters
        ]
        self.seen.append(torch.cat([g.flatten() for g in gradients]))
