"""Decoding with a shared prompt: each prompt is read once, what all prompts begin with is read once
for all of them, and the keys of a long prompt can be stored once. Prompts join while others decode.

There are two decoders. `TreeDecoder` runs our own attention over [prompt keys, own keys];
`RereadDecoder` reads the whole row again for each token, for models that do not honour the
attention interface.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.distributed.tensor import DTensor
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from strop.model.attention import attention_of, tree_attention
from strop.model.fixed import Repeats, Rows
from strop.model.keys import LayerKeys, Members, Relaid, Scoring, attended
from strop.model.logprobs import decoder_layers, eval_mode, logits_of
from strop.model.plain import PLAIN, PlainStep
from strop.model.prefixes import Known, LayerPair, Prefixes
from strop.model.probe import agree, probe_of
from strop.model.reading import Reading, read_of
from strop.model.tree import AttentionPlan

PREFILL = "strop_prefill"
DECODE = "strop_decode"
OWN_PROMPT_UP_TO = 64
"""Up to this many tokens, each row has its own copy of the prompt: one product over all keys is
faster than one over shared and one over own keys (measured on CPU)."""


class Decoder(Protocol):
    """Holds the keys of every row: first one row per prompt, later the rows that `arrange`
    makes."""

    def join(
        self, prompts: Sequence[tuple[int, ...]], room: int, *, whole: bool = False, salt: str = ""
    ) -> torch.Tensor:
        """Read prompts, each a row after those that there are; logits of their first tokens,
        [prompts, vocab]. There may be up to `room` rows until the next join. With `whole` every
        token is read, also those whose keys are kept. Keys are kept for prompts of one `salt`."""

    def step(self, tokens_R: torch.Tensor) -> torch.Tensor:
        """Append one token to every row; next logits, [rows, vocab]."""

    def arrange(self, parent_R: torch.Tensor) -> None:
        """Make each new row a copy of an old one, in the order of `places`; other old rows end."""

    def of_prompts(self, seen_T: torch.Tensor) -> list[torch.Tensor]:
        """What was noted of every token that `join` just read, prompt by prompt; it has to have
        read the `whole` of them."""

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


@dataclass(frozen=True, slots=True)
class Joining:
    """Prompts on their way into the decoder: what is read of them, where the keys that there are
    move, and the prompts' own keys by layer."""

    reading: Reading
    relaid: Relaid
    stored: list[LayerPair]


class TreeDecoder:
    """Decoding through transformers' attention interface; finished rows cost nothing.

    The keys never enter a transformers cache: the attention function stores them here by layer.
    With `plain` its layers replace the model's own modules, and with `repeats`, too, the step of
    `strop.model.fixed`. With `prefixes` the keys of prompts are kept under the name
    `weights`, and read from there.
    """

    def __init__(
        self,
        causal_lm: Any,
        *,
        plain: PlainStep | None,
        shared: bool,
        repeats: bool = False,
        prefixes: Prefixes | None = None,
        weights: str = "",
    ) -> None:
        self.causal_lm = causal_lm
        self.plain = plain
        self.repeats = Repeats(causal_lm, plain) if repeats and plain else None
        self.device = causal_lm.device
        self.shared, self.prefixes, self.weights = shared, prefixes, weights
        self.keys: dict[int, LayerKeys] = {}
        self.hidden: dict[int | None, torch.Tensor | None] = {}
        self.slot = self.first = self.room = self.longest = 0
        nobody = torch.empty(0, dtype=torch.long, device=self.device)
        self.start_R = self.group_R = self.lengths_P = nobody
        self.members: Members | None = None
        self.joining: Joining | None = None
        self.prompt_places: list[torch.Tensor] = []

    def join(
        self, prompts: Sequence[tuple[int, ...]], room: int, *, whole: bool = False, salt: str = ""
    ) -> torch.Tensor:
        weights = f"{self.weights}/{salt}"
        known = [None] * len(prompts) if whole else self._known(weights, prompts)
        reading = read_of(prompts, known, self.device, flush_left=self.shared)
        self.prompt_places = reading.places() if whole else []
        rows, longest = len(self.start_R), reading.longest
        span = self.slot - self.first
        width = span if self.shared else max(span, longest)
        relaid = Relaid(rows, self.first, self.slot, width, room, self.repeats is not None)
        self.joining = Joining(reading, relaid, [])
        logits_PV = self._read(reading)
        self._keep(weights, prompts, self.joining)
        self.joining = None
        starts_P = torch.full_like(reading.lengths_P, width)
        starts_P -= 0 if self.shared else reading.lengths_P
        self.start_R = torch.cat([self.start_R + (width - self.slot), starts_P])
        self.slot, self.room = width, room
        if self.shared:
            groups = torch.arange(len(prompts), device=self.device) + len(self.lengths_P)
            self.group_R = torch.cat([self.group_R, groups])
            self.lengths_P = torch.cat([self.lengths_P, reading.lengths_P])
            self.longest = max(self.longest, longest)
            self.members = Members(self.group_R, len(self.lengths_P))
        self._keys_moved()
        self._rows_changed()
        return logits_PV

    def _read(self, reading: Reading) -> torch.Tensor:
        """Logits of the prompts' first tokens. The model's own modules read until it is known how
        they attend."""
        plain = self.plain
        if plain is not None and plain.scorings:
            hidden_LH = plain.hidden(reading.tokens_L, reading.positions_L, self.attend_prompts)
            return plain.logits(hidden_LH[reading.last_P])
        with attention_of(self.causal_lm, PREFILL):
            hidden_1LH = self.causal_lm.get_decoder()(
                input_ids=reading.tokens_L[None],
                position_ids=reading.positions_L[None],
                use_cache=False,
                tree_plan=reading.plan,
                tree_decoder=self,
            ).last_hidden_state
        if plain is not None:
            plain.scorings = {layer: keys.scoring for layer, keys in self.keys.items()}
        return logits_of(self.causal_lm, hidden_1LH[0, reading.last_P])

    def step(self, tokens_R: torch.Tensor) -> torch.Tensor:
        if self.slot == next(iter(self.keys.values())).own_k.shape[2]:
            self._make_room()
        positions_R = self.slot - self.start_R
        if self.shared:
            positions_R = positions_R + self.lengths_P[self.group_R]
        if self.repeats is not None:
            lengths_R = self.lengths_P[self.group_R] if self.shared else None
            rows = Rows(self.slot, tokens_R, positions_R, self.start_R, self.members, lengths_R)
            logits_RV = self.repeats(self.keys, rows)
            self.slot += 1
            return logits_RV
        self.hidden = {None: self.hidden[None]} if None in self.hidden else {}
        if self.plain is not None:
            logits_RV = self.plain(tokens_R, positions_R, self.attend)
        else:
            with attention_of(self.causal_lm, DECODE):
                hidden_RH = self.causal_lm.get_decoder()(
                    input_ids=tokens_R[:, None],
                    position_ids=positions_R[:, None],
                    use_cache=False,
                    tree_decoder=self,
                ).last_hidden_state[:, 0]
            logits_RV = logits_of(self.causal_lm, hidden_RH)
        self.slot += 1
        return logits_RV

    def arrange(self, parent_R: torch.Tensor) -> None:
        moved = (parent_R != torch.arange(len(parent_R), device=self.device)).nonzero()[:, 0]
        self.start_R = self.start_R[parent_R]
        for keys in self.keys.values():
            keys.move(parent_R[moved], moved, self.first, self.slot)
        if self.shared:
            self._regroup(self.group_R[parent_R])
        self._rows_changed()

    def of_prompts(self, seen_T: torch.Tensor) -> list[torch.Tensor]:
        return [seen_T[places_L] for places_L in self.prompt_places]

    def of_tokens(self, seen_T: torch.Tensor) -> torch.Tensor:
        return seen_T

    def attend(
        self, layer: int, q_RHD: torch.Tensor, k_RKD: torch.Tensor, v_RKD: torch.Tensor
    ) -> torch.Tensor:
        """One new token per row sees its prompt, its own tokens and itself, [R, heads * D]."""
        keys, members = self.keys[layer], self.members
        times = members.times if members is not None else None
        keys.append(self.slot, k_RKD, v_RKD)
        seen = slice(self.first, self.slot + 1)
        return attended(q_RHD, keys, seen, times, self._hidden(keys.scoring.window))

    def attend_prompts(
        self, layer: int, q_LHD: torch.Tensor, k_LKD: torch.Tensor, v_LKD: torch.Tensor
    ) -> torch.Tensor:
        """The tokens that are read see what is before them in their prompts, [L, heads * D]."""
        plain = self.plain
        assert plain is not None
        query, key, value = (x.transpose(0, 1)[None] for x in (q_LHD, k_LKD, v_LKD))
        how = plain.scorings[layer]
        key, value, plan = self.store(layer, key, value, how)
        out_1LHD, _ = tree_attention(
            plain.layers[layer].self_attn, query, key, value, None,
            tree_plan=plan, scaling=how.scale, sliding_window=how.window,
        )  # fmt: skip
        return out_1LHD[0].flatten(1)

    def store(
        self, layer: int, key: torch.Tensor, value: torch.Tensor, how: Scoring
    ) -> tuple[torch.Tensor, torch.Tensor, AttentionPlan]:
        """Keep the keys of the prompts that join, in one layer, [1, kv, read, D]. Gives them back
        with those that are known, [1, kv, tokens, D], and the plan of who sees them."""
        joining = self.joining
        assert joining is not None
        key, value = joining.reading.with_known(layer, key, value)
        k_PKLD, v_PKLD = (
            x[0][:, joining.reading.gather_PL].transpose(0, 1).contiguous() for x in (key, value)
        )
        keys = self.keys.setdefault(layer, LayerKeys(k_PKLD, v_PKLD, how))
        keys.relay(joining.relaid)
        own = slice(0, 0 if self.shared else None)
        keys.add_own(joining.relaid, k_PKLD[:, :, own], v_PKLD[:, :, own])
        if self.shared:
            keys.add_prompts(k_PKLD, v_PKLD)
        if self.prefixes is not None:
            joining.stored.append((k_PKLD, v_PKLD))
        return key, value, joining.reading.plan

    def _regroup(self, group_R: torch.Tensor) -> None:
        """Forget prompts that no row has. Where steps are repeated, only when that halves them, and
        the rectangle stays as wide as it was: another shape is another graph."""
        left_P, regrouped_R = torch.unique(group_R, return_inverse=True)
        most = len(self.lengths_P) // 2 if self.repeats is not None else len(self.lengths_P) - 1
        width = 0
        if len(left_P) <= most:
            group_R, self.lengths_P = regrouped_R, self.lengths_P[left_P]
            for keys in self.keys.values():
                keys.keep_prompts(left_P)
            self._keys_moved()
        elif self.repeats is not None and self.members is not None:
            width = self.members.width
        self.group_R, self.members = group_R, Members(group_R, len(self.lengths_P), width)

    def _known(self, weights: str, prompts: Sequence[tuple[int, ...]]) -> list[Known | None]:
        if self.prefixes is None:
            return [None] * len(prompts)
        return [self.prefixes.find(weights, prompt) for prompt in prompts]

    def _keep(self, weights: str, prompts: Sequence[tuple[int, ...]], joining: Joining) -> None:
        if self.prefixes is None:
            return
        for number, prompt in enumerate(prompts):
            at = slice(0, len(prompt))
            if not self.shared:
                at = slice(joining.reading.longest - len(prompt), joining.reading.longest)
            layers = [(k[number, :, at], v[number, :, at]) for k, v in joining.stored]
            self.prefixes.add(weights, prompt, layers)

    def _make_room(self) -> None:
        """Further slots; those before the oldest row's first are given back."""
        width = self.slot - self.first
        ahead = self.repeats is not None
        relaid = Relaid(len(self.start_R), self.first, self.slot, width, self.room, ahead)
        for keys in self.keys.values():
            keys.relay(relaid)
        self.start_R = self.start_R - self.first
        self.slot, self.first = width, 0
        self._keys_moved()

    def _keys_moved(self) -> None:
        if self.repeats is not None:
            self.repeats.moved()

    def _rows_changed(self) -> None:
        self.first = int(self.start_R.min())
        self.hidden.clear()

    def _hidden(self, window: int | None) -> torch.Tensor | None:
        """Mask of keys that a row must not see; `None` hides nothing. Without a window it is the
        same until rows change."""
        if window not in self.hidden:
            self.hidden[window] = self._make_hidden(window)
        return self.hidden[window]

    def _make_hidden(self, window: int | None) -> torch.Tensor | None:
        """What is before a row's beginning or out of its window, [R, 1, 1, keys]: the keys of the
        prompts first, and then those of slots."""
        if window is not None and self.longest + self.slot + 1 - self.first <= window:
            return self._hidden(None)  # reaches back to the first token
        last = int(self.start_R.max()) if window is None else self.slot + 1
        slot_S = torch.arange(self.first, last, device=self.device)
        hidden = slot_S < self.start_R[:, None]
        if window is not None:
            hidden |= self.slot - slot_S >= window
        if self.shared:
            lengths_R1 = self.lengths_P[self.group_R, None]
            place_L = torch.arange(self.longest, device=self.device)
            on_prompt = place_L >= lengths_R1
            if window is not None:
                now_R1 = lengths_R1 + self.slot - self.start_R[:, None]
                on_prompt |= now_R1 - place_L >= window
            hidden = torch.cat([on_prompt, hidden], 1)
        return hidden[:, None, None] if hidden.any() else None


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
    scoring = Scoring(
        scale=kwargs.get("scaling") or query.shape[-1] ** -0.5,
        window=kwargs.get("sliding_window"),
        softcap=kwargs.get("softcap"),
        sinks=kwargs.get("s_aux"),
    )
    key, value, _ = tree_decoder.store(module.layer_idx, key, value, scoring)
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


@torch.no_grad()
def honours_plain(causal_lm: Any) -> bool:
    """Whether the written-out step gives this model's own numbers, tried on a small probe."""
    if causal_lm.get_decoder().config.model_type not in PLAIN:
        return False
    if any(isinstance(p, DTensor) for p in causal_lm.parameters()):
        return False  # of weights that a tensor group divides, only modules know how
    both, probe = [], probe_of(causal_lm)
    said_2R = torch.tensor([tree.branches[0].ids[:2] for tree in probe], device=causal_lm.device).T
    with eval_mode(causal_lm):
        for plain in (None, PlainStep(causal_lm)):
            decoder = TreeDecoder(causal_lm, plain=plain, shared=False)
            logits = [decoder.join([tree.trunk], len(probe)) for tree in probe]
            logits += [decoder.step(said_R) for said_R in said_2R]
            both.append(torch.cat(logits).float().log_softmax(-1))
    return agree(both[0], both[1], causal_lm.dtype)


class RereadDecoder:
    """Reads every unfinished row again for each token: slow, but correct for any causal model.

    For models whose attention cannot be replaced; their own caches disagree about padding.
    """

    def __init__(self, causal_lm: Any) -> None:
        self.causal_lm = causal_lm
        self.rows: list[torch.Tensor] = []
        self.read = self.rows  # by the last forward

    def join(
        self, prompts: Sequence[tuple[int, ...]], room: int, *, whole: bool = False, salt: str = ""
    ) -> torch.Tensor:
        new = [torch.tensor(prompt, device=self.causal_lm.device) for prompt in prompts]
        self.rows += new
        return self._forward(new)

    def step(self, tokens_R: torch.Tensor) -> torch.Tensor:
        self.rows = [torch.cat([row, t[None]]) for row, t in zip(self.rows, tokens_R, strict=True)]
        return self._forward(self.rows)

    def arrange(self, parent_R: torch.Tensor) -> None:
        self.rows = [self.rows[row] for row in parent_R.tolist()]

    def of_prompts(self, seen_T: torch.Tensor) -> list[torch.Tensor]:
        seen_RT = seen_T.unflatten(0, (len(self.read), -1))
        return [seen_T[: len(row)] for seen_T, row in zip(seen_RT, self.read, strict=True)]

    def of_tokens(self, seen_T: torch.Tensor) -> torch.Tensor:
        return torch.stack([seen_T[-1] for seen_T in self.of_prompts(seen_T)])

    def _forward(self, rows: list[torch.Tensor]) -> torch.Tensor:
        self.read = rows
        tokens_RT = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        ones = [torch.ones_like(row) for row in rows]
        mask_RT = torch.nn.utils.rnn.pad_sequence(ones, batch_first=True)
        out = self.causal_lm(input_ids=tokens_RT, attention_mask=mask_RT, use_cache=False)
        last_R = mask_RT.sum(1) - 1
        logits_RV: torch.Tensor = out.logits[torch.arange(len(last_R)), last_R]
        return logits_RV
