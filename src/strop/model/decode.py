"""Decoding with a shared prompt: each distinct prompt's keys are kept once for its whole group.

Two ways to make the next logits. `TreeDecoder` runs our own attention over [prompt keys, own keys];
`RereadDecoder` reads everything anew, for models that do not honour the attention interface.
Rows are laid out in groups of equal width, `group * width + member`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from strop.model.attention import attention_of, tree_attention
from strop.model.logprobs import logits_of
from strop.model.tree import lay_out, plan_attention
from strop.types import Tree

PREFILL = "strop_prefill"
DECODE = "strop_decode"
FIRST_SLOTS = 32
"""Key slots for sampled tokens at first; doubled whenever they are full."""


class Decoder(Protocol):
    """Holds the keys of every live row."""

    def prefill(self, prompts: Sequence[tuple[int, ...]], width: int) -> torch.Tensor:
        """Read the prompts of all groups; logits of the first token per group, [groups, vocab]."""

    def step(self, tokens_R: torch.Tensor) -> torch.Tensor:
        """Append one token to every row; next logits, [rows, vocab]."""

    def keep(self, groups: torch.Tensor, rows: torch.Tensor, width: int) -> None:
        """Keep these groups (old indices) and rows (old indices), now `width` rows a group."""


class LayerKeys:
    """Keys and values of one layer: prompts [groups, kv, Lp, D], sampled [rows, kv, slots, D]."""

    def __init__(self, prompt_k: torch.Tensor, prompt_v: torch.Tensor, rows: int) -> None:
        self.prompt_k, self.prompt_v = prompt_k, prompt_v
        shape = (rows, prompt_k.shape[1], 0, prompt_k.shape[3])
        self.own_k, self.own_v = prompt_k.new_empty(shape), prompt_v.new_empty(shape)

    def append(self, slot: int, k: torch.Tensor, v: torch.Tensor) -> None:
        if slot == self.own_k.shape[2]:
            room = (*self.own_k.shape[:2], max(slot, FIRST_SLOTS), self.own_k.shape[3])
            self.own_k = torch.cat([self.own_k, k.new_empty(room)], 2)
            self.own_v = torch.cat([self.own_v, v.new_empty(room)], 2)
        self.own_k[:, :, slot] = k[:, :, 0]
        self.own_v[:, :, slot] = v[:, :, 0]

    def keep(self, groups: torch.Tensor, rows: torch.Tensor) -> None:
        self.prompt_k, self.prompt_v = self.prompt_k[groups], self.prompt_v[groups]
        self.own_k, self.own_v = self.own_k[rows], self.own_v[rows]


class TreeDecoder:
    """Decoding through transformers' attention interface; finished rows cost nothing once kept out.

    The keys never enter a transformers cache: attention itself stores them here by layer.
    """

    def __init__(self, causal_lm: Any) -> None:
        self.causal_lm = causal_lm
        self.device = causal_lm.device
        self.keys: dict[int, LayerKeys] = {}
        self.width = 1
        self.sampled = 0
        self.lengths_P = torch.empty(0)
        self.gather_PL = torch.empty(0)

    def prefill(self, prompts: Sequence[tuple[int, ...]], width: int) -> torch.Tensor:
        distinct = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
        batch = lay_out([Tree(prompt, ()) for prompt in distinct], self.device)
        spans = torch.tensor(batch.trunk_spans, device=self.device)
        which = torch.tensor([distinct[prompt] for prompt in prompts], device=self.device)
        self.width, self.sampled = width, 0
        self.lengths_P = (spans[:, 1] - spans[:, 0])[which]
        place_PL = torch.arange(int(self.lengths_P.max()), device=self.device)[None]
        self.gather_PL = torch.where(
            place_PL < self.lengths_P[:, None], spans[which, :1] + place_PL, 0
        )
        hidden = self._forward(
            PREFILL, batch.tokens_L[None], batch.positions_L[None], plan_attention(batch)
        )
        return logits_of(self.causal_lm, hidden[0, spans[which, 1] - 1])

    def step(self, tokens_R: torch.Tensor) -> torch.Tensor:
        positions_R = self.lengths_P.repeat_interleave(self.width) + self.sampled
        hidden = self._forward(DECODE, tokens_R[:, None], positions_R[:, None], None)
        self.sampled += 1
        return logits_of(self.causal_lm, hidden[:, 0])

    def keep(self, groups: torch.Tensor, rows: torch.Tensor, width: int) -> None:
        self.width = width
        self.lengths_P = self.lengths_P[groups]
        for keys in self.keys.values():
            keys.keep(groups, rows)

    def _forward(self, name: str, ids: torch.Tensor, positions: torch.Tensor, plan: Any) -> Any:
        with attention_of(self.causal_lm, name):
            decoder = self.causal_lm.get_decoder()
            return decoder(
                input_ids=ids,
                position_ids=positions,
                use_cache=False,
                tree_plan=plan,
                tree_decoder=self,
            ).last_hidden_state


def prefill_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    tree_decoder: TreeDecoder,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Tree attention over the prompts' row, storing keys and values by layer and group."""
    stored_k, stored_v = (x[0][:, tree_decoder.gather_PL].transpose(0, 1) for x in (key, value))
    rows = len(tree_decoder.lengths_P) * tree_decoder.width
    tree_decoder.keys[module.layer_idx] = LayerKeys(stored_k, stored_v, rows)
    return tree_attention(module, query, key, value, attention_mask, **kwargs)


def decode_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    tree_decoder: TreeDecoder,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """One new token per row: query [R, heads, 1, D] -> [R, 1, heads, D]."""
    keys, slot = tree_decoder.keys[module.layer_idx], tree_decoder.sampled
    keys.append(slot, key, value)
    rows, heads, _, size = query.shape
    groups, kv_heads = keys.prompt_k.shape[:2]
    shared = heads // kv_heads
    scale = scaling if scaling is not None else size**-0.5
    q_RHSD = (query * scale).view(rows, kv_heads, shared, size)
    members = q_RHSD.view(groups, tree_decoder.width, kv_heads, shared, size).transpose(1, 2)
    on_prompt = members.flatten(2, 3) @ keys.prompt_k.transpose(-1, -2)
    on_prompt = on_prompt.unflatten(2, (tree_decoder.width, shared)).transpose(1, 2).flatten(0, 1)
    on_own = q_RHSD @ keys.own_k[:, :, : slot + 1].transpose(-1, -2)
    scores = torch.cat([on_prompt, on_own], -1)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(_hidden(tree_decoder, on_prompt.shape[-1], sliding_window), -1e30)
    if s_aux is not None:
        sink = s_aux.to(scores.dtype).view(1, kv_heads, shared, 1).expand(rows, -1, -1, 1)
        scores = torch.cat([scores, sink], -1)
    weights = torch.softmax(scores, -1, dtype=torch.float32).to(value.dtype)
    split = on_prompt.shape[-1]
    on_prompt = weights[..., :split].view(groups, tree_decoder.width, kv_heads, shared, split)
    from_prompt = on_prompt.transpose(1, 2).flatten(2, 3) @ keys.prompt_v
    from_prompt = from_prompt.unflatten(2, (tree_decoder.width, shared)).transpose(1, 2)
    from_own = weights[..., split : split + slot + 1] @ keys.own_v[:, :, : slot + 1]
    return (from_prompt.flatten(0, 1) + from_own).reshape(rows, 1, heads, size), None


def _hidden(decoder: TreeDecoder, prompt_slots: int, sliding_window: int | None) -> torch.Tensor:
    """Keys a row may not see (padding, and what lies outside a window), [R, 1, 1, keys]."""
    lengths_R = decoder.lengths_P.repeat_interleave(decoder.width)[:, None]
    place_K = torch.arange(prompt_slots, device=decoder.device)[None]
    own_K = torch.arange(decoder.sampled + 1, device=decoder.device)[None]
    hidden = torch.cat([place_K >= lengths_R, (own_K < 0).expand(len(lengths_R), -1)], 1)
    if sliding_window is not None:
        position = lengths_R + decoder.sampled
        seen = torch.cat([place_K.expand(len(lengths_R), -1), lengths_R + own_K], 1)
        hidden = hidden | (position - seen >= sliding_window)
    return hidden[:, None, None]


def _no_mask(*_: Any, **__: Any) -> None:
    """Attention itself knows what a row may see."""


AttentionInterface.register(PREFILL, prefill_attention)
AttentionInterface.register(DECODE, decode_attention)
AttentionMaskInterface.register(PREFILL, _no_mask)
AttentionMaskInterface.register(DECODE, _no_mask)


class RereadDecoder:
    """Reads every live row anew for each token: slow, and right for any causal model.

    For models whose attention cannot be replaced; their own caches disagree about padding.
    """

    def __init__(self, causal_lm: Any) -> None:
        self.causal_lm = causal_lm
        self.rows: list[torch.Tensor] = []

    def prefill(self, prompts: Sequence[tuple[int, ...]], width: int) -> torch.Tensor:
        device = self.causal_lm.device
        self.rows = [torch.tensor(prompt, device=device) for prompt in prompts]
        logits_PV = self._forward()
        self.rows = [row for row in self.rows for _ in range(width)]
        return logits_PV

    def step(self, tokens_R: torch.Tensor) -> torch.Tensor:
        self.rows = [torch.cat([row, t[None]]) for row, t in zip(self.rows, tokens_R, strict=True)]
        return self._forward()

    def keep(self, groups: torch.Tensor, rows: torch.Tensor, width: int) -> None:
        self.rows = [self.rows[row] for row in rows.tolist()]

    def _forward(self) -> torch.Tensor:
        tokens_RT = torch.nn.utils.rnn.pad_sequence(self.rows, batch_first=True)
        ones = [torch.ones_like(row) for row in self.rows]
        mask_RT = torch.nn.utils.rnn.pad_sequence(ones, batch_first=True)
        out = self.causal_lm(input_ids=tokens_RT, attention_mask=mask_RT, use_cache=False)
        last_R = mask_RT.sum(1) - 1
        logits_RV: torch.Tensor = out.logits[torch.arange(len(last_R)), last_R]
        return logits_RV
