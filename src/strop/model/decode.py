"""Decoding with a shared prompt: each prompt is read once, what all prompts begin with is read once
for all of them, and the keys of a long prompt are stored once.

There are two decoders. `TreeDecoder` runs our own attention over [prompt keys, own keys];
`RereadDecoder` reads the whole row again for each token, for models that do not honour the
attention interface.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from strop.model.attention import attention_of, tree_attention
from strop.model.logprobs import decoder_layers, eval_mode, logits_of
from strop.model.plain import PLAIN, PlainStep
from strop.model.probe import agree, probe_of
from strop.model.tree import lay_out, plan_attention
from strop.types import Branch, Tree

PREFILL = "strop_prefill"
DECODE = "strop_decode"
FIRST_SLOTS = 32
"""Key slots for sampled tokens at first; whenever they are full, as many more or a quarter."""
OWN_PROMPT_UP_TO = 64
"""Up to this many tokens, each row has its own copy of the prompt: one product over all keys is
faster than one over shared and one over own keys (measured on CPU)."""


COMMON_FROM = 8
"""Tokens that prompts have to have in common to be read together."""


class Decoder(Protocol):
    """Holds the keys of every row: first one row per prompt, later the rows that `arrange`
    makes."""

    def prefill(self, prompts: Sequence[tuple[int, ...]], most_rows: int) -> torch.Tensor:
        """Read the prompts; logits of the first token, [prompts, vocab]."""

    def step(self, tokens_R: torch.Tensor) -> torch.Tensor:
        """Append one token to every row; next logits, [rows, vocab]."""

    def arrange(self, parent_R: torch.Tensor) -> None:
        """Make each new row a copy of an old one, in the order of `places`; other old rows end."""

    def of_prompts(self, seen_T: torch.Tensor) -> list[torch.Tensor]:
        """What was noted of every token that `prefill` just read, prompt by prompt."""

    def of_tokens(self, seen_T: torch.Tensor) -> torch.Tensor:
        """What was noted of the tokens that `step` just appended, row by row."""


def places(parent_C: torch.Tensor) -> torch.Tensor:
    """New positions of the rows that continue `parent_C` (equal parents are adjacent): the parent's
    own position, or a free one, so that few rows move. `[0, 0, 3]` gives `[0, 1, 2]`."""
    count = len(parent_C)
    first_C = torch.ones_like(parent_C, dtype=torch.bool)
    first_C[1:] = parent_C[1:] != parent_C[:-1]
    stays_C = first_C & (parent_C < count)
    free_R = torch.ones_like(stays_C)
    free_R[parent_C[stays_C]] = False
    place_C = parent_C.clone()
    place_C[~stays_C] = free_R.nonzero().squeeze(1)
    return place_C


def common_beginning(prompts: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all prompts begin with (a system prompt, the template's first tag), so that
    something is left of each; 0 where it is not worth while."""
    first, last = min(prompts), max(prompts)  # the others lie between these two
    shortest = min(map(len, prompts)) - 1
    common = next((n for n in range(shortest) if first[n] != last[n]), shortest)
    return common if common >= COMMON_FROM and len(prompts) > 1 else 0


def _one_or_many(prompts: Sequence[tuple[int, ...]], common: int) -> list[Tree]:
    """Prompts as trees of their own, or as the branches of what they have in common."""
    if not common:
        return [Tree(prompt, ()) for prompt in prompts]
    rest = [prompt[common:] for prompt in prompts]
    return [Tree(prompts[0][:common], tuple(Branch(ids, (False,) * len(ids)) for ids in rest))]


@dataclass(frozen=True, slots=True)
class Scoring:
    """How one layer turns products of queries and keys into weights; `sinks` is [heads]."""

    scale: float
    window: int | None = None
    softcap: float | None = None
    sinks: torch.Tensor | None = None


class LayerKeys:
    """Keys and values of one layer.

    Shared prompts: [groups, kv, Lp, D], and separately the sampled tokens, [rows, kv, slots, D].
    Own prompts: each row's slots begin with its prompt, and there is no `prompt_k`.
    """

    prompt_k: torch.Tensor | None = None
    prompt_v: torch.Tensor | None = None

    def __init__(
        self,
        prompt_k: torch.Tensor,
        prompt_v: torch.Tensor,
        most_rows: int,
        scoring: Scoring,
        *,
        shared: bool,
    ) -> None:
        self.scoring = scoring
        self.own_k, self.own_v = (
            x.new_empty(most_rows, x.shape[1], 0 if shared else x.shape[2], x.shape[3])
            for x in (prompt_k, prompt_v)
        )
        if shared:
            self.prompt_k, self.prompt_v = prompt_k, prompt_v
        else:
            self.own_k[: len(prompt_k)], self.own_v[: len(prompt_v)] = prompt_k, prompt_v

    def append(self, slot: int, k_RKD: torch.Tensor, v_RKD: torch.Tensor) -> None:
        if slot == self.own_k.shape[2]:
            self.own_k, self.own_v = _longer(self.own_k), _longer(self.own_v)
        self.own_k[: len(k_RKD), :, slot] = k_RKD
        self.own_v[: len(v_RKD), :, slot] = v_RKD

    def move(self, source: torch.Tensor, target: torch.Tensor, slots: int) -> None:
        """Copy the keys and values of rows `source` to rows `target`."""
        for own in (self.own_k, self.own_v):
            own[target, :, :slots] = own[source, :, :slots]

    def keep_prompts(self, group_P: torch.Tensor) -> None:
        if self.prompt_k is not None and self.prompt_v is not None:
            self.prompt_k, self.prompt_v = self.prompt_k[group_P], self.prompt_v[group_P]


def _longer(own: torch.Tensor) -> torch.Tensor:
    rows, kv_heads, slots, size = own.shape
    room = own.new_empty(rows, kv_heads, max(slots // 4, FIRST_SLOTS), size)
    return torch.cat([own, room], 2)


class Members:
    """Which rows share a prompt, and the rectangle [groups, width] they are laid in for it.

    `group_R` numbers the prompt of each row; every prompt has one. In the rectangle a group with
    fewer than `width` rows repeats one, and the repetition is left out on the way back.
    """

    def __init__(self, group_R: torch.Tensor) -> None:
        count_P = torch.bincount(group_R)
        self.groups, self.width = len(count_P), int(count_P.max())
        order = group_R.argsort(stable=True)
        row_R = torch.arange(len(order), device=order.device)
        start_P = count_P.cumsum(0) - count_P
        self.slot_R = torch.empty_like(order)
        self.slot_R[order] = group_R[order] * self.width + row_R - start_P[group_R[order]]
        self.row_S = order.new_zeros(self.groups * self.width)
        self.row_S[self.slot_R] = row_R
        self.in_place = len(self.row_S) == len(row_R) and torch.equal(self.slot_R, row_R)

    def times(self, x_RKSA: torch.Tensor, matrix_PKAB: torch.Tensor) -> torch.Tensor:
        """Every row times its prompt's matrix, [rows, kv, shared, B]."""
        x = x_RKSA if self.in_place else x_RKSA.index_select(0, self.row_S)
        shape = (self.width, x.shape[2])
        x = x.unflatten(0, (self.groups, self.width)).transpose(1, 2).flatten(2, 3)
        out: torch.Tensor = (x @ matrix_PKAB).unflatten(2, shape).transpose(1, 2).flatten(0, 1)
        return out if self.in_place else out.index_select(0, self.slot_R)


class TreeDecoder:
    """Decoding through transformers' attention interface; finished rows cost nothing.

    The keys never enter a transformers cache: the attention function stores them here by layer.
    With `plain`, the step of `strop.model.plain` replaces the model's own modules.
    """

    def __init__(self, causal_lm: Any, *, plain: bool) -> None:
        self.causal_lm = causal_lm
        self.plain = PlainStep(causal_lm.get_decoder()) if plain else None
        self.device = causal_lm.device
        self.keys: dict[int, LayerKeys] = {}
        self.hidden: dict[int | None, torch.Tensor | None] = {}
        self.sampled = self.first_slot = self.shortest = self.most_rows = 0
        self.lengths_P = self.gather_PL = torch.empty(0)
        self.group_R = torch.empty(0)
        self.members: Members | None = None

    def prefill(self, prompts: Sequence[tuple[int, ...]], most_rows: int) -> torch.Tensor:
        common = common_beginning(prompts)
        batch = lay_out(_one_or_many(prompts, common), self.device)
        own = batch.branch_spans if common else batch.trunk_spans
        start_P1, stop_P1 = torch.tensor(own, device=self.device).T[:, :, None]
        self.group_R = torch.arange(len(prompts), device=self.device)
        self.sampled, self.most_rows = 0, most_rows
        self.lengths_P = common + (stop_P1 - start_P1)[:, 0]
        place_L = torch.arange(int(self.lengths_P.max()), device=self.device)
        read_PL = torch.where(place_L < common, place_L, start_P1 + place_L - common)
        self.gather_PL = torch.where(place_L < self.lengths_P[:, None], read_PL, 0)
        self.shortest = int(self.lengths_P.min())
        shared = most_rows > len(prompts) and self.gather_PL.shape[1] > OWN_PROMPT_UP_TO
        self.first_slot = 0 if shared else self.gather_PL.shape[1]
        self.members = Members(self.group_R) if shared else None
        with attention_of(self.causal_lm, PREFILL):
            hidden_1LH = self.causal_lm.get_decoder()(
                input_ids=batch.tokens_L[None],
                position_ids=batch.positions_L[None],
                use_cache=False,
                tree_plan=plan_attention(batch),
                tree_decoder=self,
            ).last_hidden_state
        return logits_of(self.causal_lm, hidden_1LH[0, stop_P1[:, 0] - 1])

    def step(self, tokens_R: torch.Tensor) -> torch.Tensor:
        positions_R = self.lengths_P[self.group_R] + self.sampled
        self.hidden.clear()
        if self.plain is not None:
            hidden_RH = self.plain(tokens_R, positions_R, self.attend)
        else:
            with attention_of(self.causal_lm, DECODE):
                hidden_RH = self.causal_lm.get_decoder()(
                    input_ids=tokens_R[:, None],
                    position_ids=positions_R[:, None],
                    use_cache=False,
                    tree_decoder=self,
                ).last_hidden_state[:, 0]
        self.sampled += 1
        return logits_of(self.causal_lm, hidden_RH)

    def arrange(self, parent_R: torch.Tensor) -> None:
        moved = (parent_R != torch.arange(len(parent_R), device=self.device)).nonzero()[:, 0]
        left_P, self.group_R = torch.unique(self.group_R[parent_R], return_inverse=True)
        ended = len(left_P) < len(self.lengths_P)
        self.lengths_P = self.lengths_P[left_P]
        self.shortest = int(self.lengths_P.min())
        if self.members is not None:
            self.members = Members(self.group_R)
        for keys in self.keys.values():
            keys.move(parent_R[moved], moved, self.first_slot + self.sampled)
            if ended:
                keys.keep_prompts(left_P)

    def of_prompts(self, seen_T: torch.Tensor) -> list[torch.Tensor]:
        pairs = zip(self.gather_PL, self.lengths_P.tolist(), strict=True)
        return [seen_T[places_L[:length]] for places_L, length in pairs]

    def of_tokens(self, seen_T: torch.Tensor) -> torch.Tensor:
        return seen_T

    def attend(
        self, layer: int, q_RHD: torch.Tensor, k_RKD: torch.Tensor, v_RKD: torch.Tensor
    ) -> torch.Tensor:
        """One new token per row sees its prompt, its own tokens and itself, [R, heads * D]."""
        keys, slot = self.keys[layer], self.first_slot + self.sampled
        scoring = keys.scoring
        keys.append(slot, k_RKD, v_RKD)
        rows, kv_heads, size = k_RKD.shape
        q_RKSD = (q_RHD * scoring.scale).view(rows, kv_heads, -1, size)
        scores = q_RKSD @ keys.own_k[:rows, :, : slot + 1].transpose(-1, -2)
        if self.members is not None and keys.prompt_k is not None:
            on_prompt = self.members.times(q_RKSD, keys.prompt_k.transpose(-1, -2))
            scores = torch.cat([on_prompt, scores], -1)
        if scoring.softcap is not None:
            scores = scoring.softcap * torch.tanh(scores / scoring.softcap)
        hidden = self._hidden(scoring.window)
        if hidden is not None:
            scores[..., : hidden.shape[-1]].masked_fill_(hidden, -1e30)
        weights = _softmax(scores, scoring.sinks).to(v_RKD.dtype)
        out = weights[..., -slot - 1 :] @ keys.own_v[:rows, :, : slot + 1]
        if self.members is not None and keys.prompt_v is not None:
            out = out + self.members.times(weights[..., : -slot - 1], keys.prompt_v)
        return out.reshape(rows, -1)

    def _hidden(self, window: int | None) -> torch.Tensor | None:
        """Mask of keys that a row must not see, made once per step and window; `None` hides
        nothing."""
        if window not in self.hidden:
            self.hidden[window] = self._make_hidden(window)
        return self.hidden[window]

    def _make_hidden(self, window: int | None) -> torch.Tensor | None:
        """Prompt padding [R, 1, 1, Lp], or padding and what is out of the window, for all keys."""
        longest, own = self.gather_PL.shape[1], self.sampled + 1
        if window is not None and longest + own <= window:
            window = None  # reaches back to the first token
        if window is None and self.shortest == longest:
            return None
        lengths_R1 = self.lengths_P[self.group_R, None]
        place_L = torch.arange(longest, device=self.device)
        hidden = place_L >= lengths_R1
        if window is not None:
            own_RO = lengths_R1 + torch.arange(own, device=self.device)
            position_RK = torch.cat([place_L.expand(len(own_RO), -1), own_RO], 1)
            hidden = torch.nn.functional.pad(hidden, (0, own))
            hidden |= own_RO[:, -1:] - position_RK >= window
        return hidden[:, None, None]


def _softmax(scores: torch.Tensor, sinks: torch.Tensor | None) -> torch.Tensor:
    """float32 weights of [R, kv, shared, keys]; a sink takes part in the sum and has no value."""
    if sinks is None:
        return torch.softmax(scores, -1, dtype=torch.float32)
    rows, kv_heads = scores.shape[:2]
    sink = sinks.to(scores.dtype).view(1, kv_heads, -1, 1).expand(rows, -1, -1, 1)
    return torch.softmax(torch.cat([scores, sink], -1), -1, dtype=torch.float32)[..., :-1]


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
    """Tree attention over the prompts' row, storing keys, values and scoring by layer."""
    stored_k, stored_v = (
        x[0][:, tree_decoder.gather_PL].transpose(0, 1).contiguous() for x in (key, value)
    )
    scoring = Scoring(
        scale=kwargs.get("scaling") or query.shape[-1] ** -0.5,
        window=kwargs.get("sliding_window"),
        softcap=kwargs.get("softcap"),
        sinks=kwargs.get("s_aux"),
    )
    tree_decoder.keys[module.layer_idx] = LayerKeys(
        stored_k,
        stored_v,
        tree_decoder.most_rows,
        scoring,
        shared=tree_decoder.members is not None,
    )
    return tree_attention(module, query, key, value, attention_mask, **kwargs)


def decode_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *_: Any,
    tree_decoder: TreeDecoder,
    **__: Any,
) -> tuple[torch.Tensor, None]:
    """One new token per row: query [R, heads, 1, D] -> [R, 1, heads, D]."""
    q, k, v = query[:, :, 0], key[:, :, 0], value[:, :, 0]
    return tree_decoder.attend(module.layer_idx, q, k, v).view(*q.shape[:2], -1)[:, None], None


def _no_mask(*_: Any, **__: Any) -> None:
    """No mask: the attention function knows what a row may see."""


AttentionInterface.register(PREFILL, prefill_attention)
AttentionInterface.register(DECODE, decode_attention)
AttentionMaskInterface.register(PREFILL, _no_mask)
AttentionMaskInterface.register(DECODE, _no_mask)


def slot_bytes(causal_lm: Any) -> int:
    """What the keys and values of one token take in all layers."""
    config = causal_lm.config.get_text_config()
    heads = int(config.num_attention_heads)
    kv_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    size = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return 2 * decoder_layers(causal_lm) * kv_heads * size * int(causal_lm.dtype.itemsize)


def slots_of(prompt: int, rows: int, sampled: int) -> int:
    """Key slots of a prompt's rows that sample so many tokens each, as `TreeDecoder` lays them."""
    shared = rows > 1 and prompt > OWN_PROMPT_UP_TO
    return (prompt if shared else prompt * rows) + sampled * rows


@torch.no_grad()
def honours_plain(causal_lm: Any) -> bool:
    """Whether the written-out step gives this model's own numbers, tried on a small probe."""
    if causal_lm.get_decoder().config.model_type not in PLAIN:
        return False
    both, probe = [], probe_of(causal_lm)
    said_2R = torch.tensor([tree.branches[0].ids[:2] for tree in probe], device=causal_lm.device).T
    with eval_mode(causal_lm):
        for plain in (False, True):
            decoder = TreeDecoder(causal_lm, plain=plain)
            decoder.prefill([tree.trunk for tree in probe], len(probe))
            both += [decoder.step(said_R).float().log_softmax(-1) for said_R in said_2R]
    return agree(torch.cat(both[:2]), torch.cat(both[2:]), causal_lm.dtype)


class RereadDecoder:
    """Reads every unfinished row again for each token: slow, but correct for any causal model.

    For models whose attention cannot be replaced; their own caches disagree about padding.
    """

    def __init__(self, causal_lm: Any) -> None:
        self.causal_lm = causal_lm
        self.rows: list[torch.Tensor] = []

    def prefill(self, prompts: Sequence[tuple[int, ...]], most_rows: int) -> torch.Tensor:
        self.rows = [torch.tensor(prompt, device=self.causal_lm.device) for prompt in prompts]
        return self._forward()

    def step(self, tokens_R: torch.Tensor) -> torch.Tensor:
        self.rows = [torch.cat([row, t[None]]) for row, t in zip(self.rows, tokens_R, strict=True)]
        return self._forward()

    def arrange(self, parent_R: torch.Tensor) -> None:
        self.rows = [self.rows[row] for row in parent_R.tolist()]

    def of_prompts(self, seen_T: torch.Tensor) -> list[torch.Tensor]:
        seen_RT = seen_T.unflatten(0, (len(self.rows), -1))
        return [seen_T[: len(row)] for seen_T, row in zip(seen_RT, self.rows, strict=True)]

    def of_tokens(self, seen_T: torch.Tensor) -> torch.Tensor:
        return torch.stack([seen_T[-1] for seen_T in self.of_prompts(seen_T)])

    def _forward(self) -> torch.Tensor:
        tokens_RT = torch.nn.utils.rnn.pad_sequence(self.rows, batch_first=True)
        ones = [torch.ones_like(row) for row in self.rows]
        mask_RT = torch.nn.utils.rnn.pad_sequence(ones, batch_first=True)
        out = self.causal_lm(input_ids=tokens_RT, attention_mask=mask_RT, use_cache=False)
        last_R = mask_RT.sum(1) - 1
        logits_RV: torch.Tensor = out.logits[torch.arange(len(last_R)), last_R]
        return logits_RV
