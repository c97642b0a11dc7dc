"""The sizes of a network, from its config alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM


@dataclass(frozen=True, slots=True)
class Shape:
    """`Shape(parameters=134_515_008, linear=106_168_320, vocabulary=49_152, hidden=576, layers=30,
    ...)`; `linear` counts the weights of all linear layers but the head, which adapters stand on
    and which 4 bits store; `lora_width` is the sum of their inputs and outputs: an adapter of rank
    r has r times as many weights."""

    parameters: int
    linear: int
    lora_width: int
    vocabulary: int
    hidden: int
    layers: int
    key_values: int
    head_dim: int
    tied: bool

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
        lora_width=sum(module.in_features + module.out_features for module in linear),
        vocabulary=int(text.vocab_size),
        hidden=int(text.hidden_size),
        layers=int(text.num_hidden_layers),
        key_values=int(getattr(text, "num_key_value_heads", None) or heads),
        head_dim=int(getattr(text, "head_dim", None) or text.hidden_size // heads),
        tied=bool(text.tie_word_embeddings),
    )
