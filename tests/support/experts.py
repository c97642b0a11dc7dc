"""Tiny mixtures of experts, and their forward written out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from strop.model.routing import packed, unpacked
from strop.types import Routes, Tree
from tests.support.families import SHAPE

EXPERTS, CHOSEN = 6, 2
NORMED = {"norm_topk_prob": True}
QWEN = {"num_experts": EXPERTS, "num_experts_per_tok": CHOSEN, "moe_intermediate_size": 24}

MIXTURES = {
    # the layer in the middle is dense
    "qwen3_moe": lambda: hf.Qwen3MoeForCausalLM(
        hf.Qwen3MoeConfig(**SHAPE, **QWEN, **NORMED, head_dim=16, mlp_only_layers=[1])
    ),
    "qwen3_moe_not_normed": lambda: hf.Qwen3MoeForCausalLM(
        hf.Qwen3MoeConfig(**SHAPE, **QWEN, norm_topk_prob=False, head_dim=16)
    ),
    "qwen2_moe": lambda: hf.Qwen2MoeForCausalLM(
        hf.Qwen2MoeConfig(**SHAPE, **QWEN, shared_expert_intermediate_size=24)
    ),
    "olmoe": lambda: hf.OlmoeForCausalLM(
        hf.OlmoeConfig(**SHAPE, num_experts=EXPERTS, num_experts_per_tok=CHOSEN, **NORMED)
    ),
    "mixtral": lambda: hf.MixtralForCausalLM(
        hf.MixtralConfig(
            **SHAPE, num_local_experts=EXPERTS, num_experts_per_tok=CHOSEN, sliding_window=None
        )
    ),
}


def mixture(name: str = "qwen3_moe") -> Any:
    torch.manual_seed(0)
    model = MIXTURES[name]()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return model.eval()


def drawn_routes(seed: int, tokens: int, layers: int = SHAPE["num_hidden_layers"]) -> Routes:
    """Every token goes to two different experts in every layer, at random."""
    dice = torch.Generator().manual_seed(seed)
    noise = torch.rand(tokens, layers, EXPERTS, generator=dice)
    return packed(noise.topk(CHOSEN).indices, EXPERTS)


def along(trees: Sequence[Tree], routes: Sequence[Routes]) -> list[Tree]:
    """The trees with routes for all trunks and branches, in the order of the laid-out row."""
    given = iter(routes)
    return [
        replace(
            tree,
            routes=next(given),
            branches=tuple(replace(branch, routes=next(given)) for branch in tree.branches),
        )
        for tree in trees
    ]


def drawn_along(trees: Sequence[Tree], seed: int = 0) -> list[Tree]:
    """The trees along routes at random; the last token of a branch has none, as an engine reads
    all but that one."""
    lengths = [
        length
        for tree in trees
        for length in (len(tree.trunk), *(len(branch.ids) - 1 for branch in tree.branches))
    ]
    return along(trees, [drawn_routes(seed + n, length) for n, length in enumerate(lengths)])


def by_hand(model: Any, tree: Tree, branch: int) -> torch.Tensor:
    """Log-probs of a branch's supervised tokens: one row, and in every layer that routes a loop
    over tokens and their experts."""
    chosen = tree.branches[branch]
    assert tree.routes is not None
    assert chosen.routes is not None
    ids = torch.tensor([*tree.trunk, *chosen.ids])
    experts_TLC = torch.cat([unpacked(tree.routes), unpacked(chosen.routes)]).tolist()
    decoder = model.get_decoder()
    hidden = decoder.embed_tokens(ids)[None]
    turns = decoder.rotary_emb(hidden, torch.arange(len(ids))[None])
    before = torch.full((len(ids), len(ids)), float("-inf"), dtype=hidden.dtype).triu(1)
    for number, layer in enumerate(decoder.layers):
        normed = layer.input_layernorm(hidden)
        hidden = (
            hidden
            + layer.self_attn(
                hidden_states=normed, position_embeddings=turns, attention_mask=before[None, None]
            )[0]
        )
        normed = layer.post_attention_layernorm(hidden)
        routes = [token[number] for token in experts_TLC]
        hidden = hidden + _mixed(layer.mlp, normed[0], routes)[None]
    logprobs = model.lm_head(decoder.norm(hidden))[0].log_softmax(-1)
    places = [i for i, counts in enumerate(chosen.supervised) if counts]
    first = len(tree.trunk)
    return torch.stack([logprobs[first + i - 1, chosen.ids[i]] for i in places])


def _mixed(block: Any, x_TH: torch.Tensor, routes: list[list[int]]) -> torch.Tensor:
    """What a layer's experts say of each token; the last token, whose own output nobody reads, has
    no route."""
    parts = dict(block.named_children())
    if "experts" not in parts:
        dense: torch.Tensor = block(x_TH)
        return dense
    normed = type(block.gate).__name__.startswith("Mixtral") or block.gate.norm_topk_prob
    said = []
    for x_H, chosen in zip(x_TH, [*routes, [0, 1]], strict=True):
        weights = (block.gate.weight @ x_H).float().softmax(-1)[chosen]
        if normed:
            weights = weights / weights.sum()
        said.append(
            sum(w * _expert(block.experts, e, x_H) for w, e in zip(weights, chosen, strict=True))
        )
    out_TH = torch.stack(said)
    if "shared_expert" in parts:
        out_TH = out_TH + block.shared_expert_gate(x_TH).sigmoid() * block.shared_expert(x_TH)
    return out_TH


def _expert(experts: Any, number: int, x_H: torch.Tensor) -> torch.Tensor:
    gate, up = (experts.gate_up_proj[number] @ x_H).chunk(2)
    said: torch.Tensor = experts.down_proj[number] @ (torch.nn.functional.silu(gate) * up)
    return said


def save_mixture(folder: Path, tokenizer: Any, *, std: float = 0.2) -> Path:
    """A Qwen3-MoE of three narrow layers, with that tokenizer."""
    torch.manual_seed(0)
    config = hf.Qwen3MoeConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, moe_intermediate_size=24,
        num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        num_experts=EXPERTS, num_experts_per_tok=CHOSEN, norm_topk_prob=True,
        max_position_embeddings=128, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = hf.Qwen3MoeForCausalLM(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=std)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
