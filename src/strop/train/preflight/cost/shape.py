"""The sizes of a network, from its config alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from strop.model.adapters import adapted_linear, expert_parameters
from strop.recipe.train.model import LoraRecipe


@dataclass(frozen=True, slots=True)
class Shape:
    """`Shape(parameters=134_515_008, linear=106_168_320, vocabulary=49_152, hidden=576, layers=30,
    ...)`; `linear` counts the weights of all linear layers but the head, which
    4 bits store; `lora_width` is the sum of inputs and outputs of those that adapters stand on: an
    adapter of rank r has r times as many weights; `experts_width` is that sum over all experts."""

    parameters: int
    linear: int
    lora_width: int
    experts_width: int
    vocabulary: int
    hidden: int
    layers: int
    key_values: int
    head_dim: int
    tied: bool

    def adapter(self, lora: LoraRecipe) -> int:
        """Weights of an adapter on every linear layer (and on the experts, if it has those)."""
        return lora.rank * (self.lora_width + self.experts_width * lora.experts)

    def slot_bytes(self, number: int) -> int:
        """Keys and values of one token in all layers, of numbers of so many bytes."""
        return 2 * self.layers * self.key_values * self.head_dim * number


def shape_of(config: Any) -> Shape:
    """Build the network without its weights and count."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    text = config.get_text_config()
    head = model.get_output_embeddings()
    linear = [
        module for module in model.modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    ]  # fmt: skip
    heads = int(text.num_attention_heads)
    return Shape(
        parameters=sum(p.numel() for p in model.parameters()),
        linear=sum(module.weight.numel() for module in linear),
        lora_width=sum(
            module.in_features + module.out_features for module in adapted_linear(model).values()
        ),
        experts_width=_experts_width(model),
        vocabulary=int(text.vocab_size),
        hidden=int(text.hidden_size),
        layers=int(text.num_hidden_layers),
        key_values=int(getattr(text, "num_key_value_heads", None) or heads),
        head_dim=int(getattr(text, "head_dim", None) or text.hidden_size // heads),
        tied=bool(text.tie_word_embeddings),
    )


def _experts_width(model: Any) -> int:
    """Inputs and outputs of all matrices of all experts: a parameter is [experts, out, in] or
    [experts, in, out]."""
    names = tuple(f".{name}" for name in expert_parameters(model))
    shapes = [p.shape for name, p in model.named_parameters() if names and name.endswith(names)]
    return sum(experts * (rows + columns) for experts, rows, columns in shapes)
