"""Tree attention as a transformers attention function.

Registered once under the name `strop_tree`; the plan arrives through the model's own keyword
arguments (`tree_plan`), so any decoder that honours the attention interface works unchanged.
Sliding windows, soft-caps and attention sinks arrive as keyword arguments and are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from strop.model.routing import replayed, replayed_now
from strop.model.tree import AttentionBlock, AttentionPlan

NAME = "strop_tree"

WRITTEN_OUT_KEYS = 96
"""Up to this many keys, plain matrix products beat the fused kernel (measured on CPU: 2 times)."""


def tree_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    tree_plan: AttentionPlan,
    tree_observer: Callable[[torch.nn.Module], None] | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention over one laid-out row.

    Shapes: query [1, heads, L, D], key and value [1, kv_heads, L, D] -> [1, L, heads, D].
    `tree_observer` is called every time, so that a probe can count the layers that call this.
    """
    if tree_observer is not None:
        tree_observer(module)
    q_LHD, k_LHD, v_LHD = (x.squeeze(0).transpose(0, 1) for x in (query, key, value))
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    wide = [block.key_SK.numel() for block in tree_plan.blocks]
    tall = [block.query_SQ.numel() for block in tree_plan.blocks]
    read = zip(
        tree_plan.blocks,
        q_LHD.index_select(0, tree_plan.queries).split(tall),
        k_LHD.index_select(0, tree_plan.keys).split(wide),
        v_LHD.index_select(0, tree_plan.keys).split(wide),
        strict=True,
    )
    pieces = []
    for block, q_NHD, k_NHD, v_NHD in read:
        q = _rectangle(q_NHD, block.query_SQ)
        k = _rectangle(k_NHD, block.key_SK)
        v = _rectangle(v_NHD, block.key_SK)
        fused = softcap is None and s_aux is None and k.shape[2] > WRITTEN_OUT_KEYS
        if fused and block.causal and sliding_window is None:
            # padding comes last, where no real query attends, so half of the scores are never
            # computed
            out = scaled_dot_product_attention(
                q, k, v, dropout_p=dropout, is_causal=True, scale=scale, enable_gqa=True
            )
        elif fused:
            mask = _bias(block, sliding_window, q.dtype)[:, None]
            out = scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale, enable_gqa=True
            )
        else:
            bias = _bias(block, sliding_window, q.dtype)
            out = written_out(q * scale, k, v, bias, dropout=dropout, softcap=softcap, sinks=s_aux)
        pieces.append(out.transpose(1, 2).flatten(0, 1))
    out_LHD = torch.cat(pieces).index_select(0, tree_plan.order_L)
    return out_LHD.unsqueeze(0), None


def _rectangle(x_NHD: torch.Tensor, index_SL: torch.Tensor) -> torch.Tensor:
    """Rows of [S * length, heads, D] as [S, heads, length, D]."""
    return x_NHD.view(*index_SL.shape, *x_NHD.shape[1:]).transpose(1, 2)


def _bias(block: AttentionBlock, sliding_window: int | None, dtype: torch.dtype) -> torch.Tensor:
    """The bias added to the scores, [S, Q, K]; a window of w sees distances 0 to w - 1."""
    bias = block.bias_SQK
    if sliding_window is not None:
        bias = bias.masked_fill(block.distance_SQK >= sliding_window, float("-inf"))
    return bias.to(dtype)


def written_out(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias_SQK: torch.Tensor,
    *,
    dropout: float = 0.0,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Softmax(q k + bias) v by plain matrix products, heads that share keys folded into rows.

    Shapes: q [S, heads, Q, D] already scaled, k and v [S, kv_heads, K, D] -> [S, heads, Q, D].
    `softcap` c replaces scores s by c tanh(s / c); `sinks` [heads] adds one score without a value.
    """
    segments, heads, queries, _ = q.shape
    kv_heads = k.shape[1]
    shared = heads // kv_heads
    folded = q.reshape(segments, kv_heads, shared * queries, -1)
    scores = (folded @ k.transpose(-1, -2)).view(segments, kv_heads, shared, queries, -1)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores + bias_SQK[:, None, None]
    if sinks is not None:
        sink = sinks.to(scores.dtype).view(1, kv_heads, shared, 1, 1)
        scores = torch.cat([scores, sink.expand(segments, -1, -1, queries, 1)], -1)
    finer = torch.promote_types(scores.dtype, torch.float32)
    weights = torch.softmax(scores, -1, dtype=finer).to(v.dtype)
    if sinks is not None:
        weights = weights[..., :-1]
    weights = torch.nn.functional.dropout(weights, dropout)
    out = weights.reshape(segments, kv_heads, shared * queries, -1) @ v
    return out.view(segments, heads, queries, -1)


def _no_mask(*_: Any, **__: Any) -> None:
    """The plan carries the mask; transformers need not build one."""


AttentionInterface.register(NAME, tree_attention)
AttentionMaskInterface.register(NAME, _no_mask)


@contextmanager
def attention_of(model: torch.nn.Module, name: str) -> Iterator[None]:
    """Run a transformers model with the named attention function for the duration."""
    config: Any = model.config
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


def recomputed_alike(
    model: torch.nn.Module,
) -> Callable[[], tuple[AbstractContextManager[None], AbstractContextManager[None]]]:
    """For gradient checkpointing: layers that are recomputed in the backward use the attention
    function of their forward, even if another one is set by then, and replay the routes that it
    replayed."""
    config: Any = model.config

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _again(model, config._attn_implementation, replayed_now())

    return contexts


@contextmanager
def _again(
    model: torch.nn.Module, attention: str, routes_TLC: torch.Tensor | None
) -> Iterator[None]:
    rerouted = nullcontext() if routes_TLC is None else replayed(model, routes_TLC)
    with attention_of(model, attention), rerouted:
        yield
