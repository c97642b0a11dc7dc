"""A tiny model of every family, and trees over their vocabulary."""

from __future__ import annotations

import random
from typing import Any

import torch
import transformers as hf

from strop.types import Branch, Tree

VOCABULARY = 97
SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
GEMMA = {**SHAPE, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 6}
# transformers' own sdpa knows neither soft-caps nor sinks: eager is the reference there
EAGER = {"attn_implementation": "eager"}

MODELS = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SHAPE)),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**SHAPE)),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**SHAPE, head_dim=16)),
    "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**SHAPE, sliding_window=5)),
    "gemma2": lambda: hf.Gemma2ForCausalLM(hf.Gemma2Config(**GEMMA, **EAGER)),
    "gemma3": lambda: hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**GEMMA)),
    "gpt_oss": lambda: hf.GptOssForCausalLM(
        hf.GptOssConfig(
            **SHAPE,
            **EAGER,
            head_dim=16,
            num_local_experts=4,
            sliding_window=6,
            num_experts_per_tok=2,
        )
    ),
}


def model_of(name: str) -> Any:
    torch.manual_seed(0)
    model = MODELS[name]()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return model.eval()


def tree_of(draw: random.Random, branches: int, longest: int) -> Tree:
    trunk = tuple(draw.randrange(VOCABULARY) for _ in range(draw.randint(1, longest)))
    grown = []
    for _ in range(branches):
        ids = tuple(draw.randrange(VOCABULARY) for _ in range(draw.choice([1, 1, 3, longest])))
        supervised = tuple(draw.random() < 0.8 for _ in ids[1:])
        grown.append(Branch(ids, (True, *supervised)))
    return Tree(trunk, tuple(grown))
