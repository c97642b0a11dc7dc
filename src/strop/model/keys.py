"""Keys and values of the rows that are decoded, layer by layer.

All rows write at the same slot, so that a step writes one slice. A row that joins later begins
later: what lies before its beginning belongs to nobody and is hidden from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

FIRST_SLOTS = 32
"""Key slots for sampled tokens at first; whenever they are full, as many more or a quarter."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """How one layer turns products of queries and keys into weights; `sinks` is [heads]."""

    scale: float
    window: int | None = None
    softcap: float | None = None
    sinks: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Relaid:
    """Where keys move when rows join or slots run out: `Relaid(rows=3, first=4, stop=20, width=40,
    room=8)` puts slots 4 to 19 of three rows at slots 24 to 39, in space for 8 rows. With `ahead`
    steps also look at slots that are to be written later, and hide them."""

    rows: int
    first: int
    stop: int
    width: int
    room: int
    ahead: bool = False


class LayerKeys:
    """Keys and values of one layer.

    Shared prompts: [groups, kv, Lp, D], and separately the sampled tokens, [rows, kv, slots, D].
    Own prompts: each row's slots hold its prompt, too, and there is no `prompt_k`.
    """

    prompt_k: torch.Tensor | None = None
    prompt_v: torch.Tensor | None = None

    def __init__(self, k_PKLD: torch.Tensor, v_PKLD: torch.Tensor, scoring: Scoring) -> None:
        self.scoring = scoring
        self.own_k, self.own_v = (
            x.new_empty(0, x.shape[1], 0, x.shape[3]) for x in (k_PKLD, v_PKLD)
        )

    def relay(self, to: Relaid) -> None:
        self.own_k, self.own_v = _relaid(self.own_k, to), _relaid(self.own_v, to)

    def add_own(self, to: Relaid, k_PKLD: torch.Tensor, v_PKLD: torch.Tensor) -> None:
        """Rows after those that moved, whose own keys end where theirs do; L may be 0."""
        for own, new in ((self.own_k, k_PKLD), (self.own_v, v_PKLD)):
            own[to.rows : to.rows + len(new), :, to.width - new.shape[2] : to.width] = new

    def add_prompts(self, k_PKLD: torch.Tensor, v_PKLD: torch.Tensor) -> None:
        """Prompts that rows share, as the groups after those that there are."""
        if self.prompt_k is not None and self.prompt_v is not None:
            k_PKLD, v_PKLD = _stacked(self.prompt_k, k_PKLD), _stacked(self.prompt_v, v_PKLD)
        self.prompt_k, self.prompt_v = k_PKLD, v_PKLD

    def append(self, slot: int, k_RKD: torch.Tensor, v_RKD: torch.Tensor) -> None:
        self.own_k[: len(k_RKD), :, slot] = k_RKD
        self.own_v[: len(v_RKD), :, slot] = v_RKD

    def move(self, source: torch.Tensor, target: torch.Tensor, first: int, stop: int) -> None:
        """Copy the keys and values of rows `source` to rows `target`."""
        for own in (self.own_k, self.own_v):
            own[target, :, first:stop] = own[source, :, first:stop]

    def keep_prompts(self, group_P: torch.Tensor) -> None:
        if self.prompt_k is not None and self.prompt_v is not None:
            self.prompt_k, self.prompt_v = self.prompt_k[group_P], self.prompt_v[group_P]


def _relaid(own: torch.Tensor, to: Relaid) -> torch.Tensor:
    """Slots without keys that a step reads are 0: they are hidden, but what is no number would
    spread."""
    new = own.new_empty(to.room, own.shape[1], to.width + max(to.width // 4, FIRST_SLOTS),
                        own.shape[3])  # fmt: skip
    before = to.width - (to.stop - to.first)
    new[: to.rows, :, before : to.width] = own[: to.rows, :, to.first : to.stop]
    new[: to.rows, :, :before] = 0
    new[to.rows :, :, : to.width] = 0
    if to.ahead:
        new[:, :, to.width :] = 0
    return new


def _stacked(above: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
    """Two [groups, kv, L, D] of different L, the shorter one padded with zeros."""
    longest = max(above.shape[2], below.shape[2])
    both = [torch.nn.functional.pad(x, (0, 0, 0, longest - x.shape[2])) for x in (above, below)]
    return torch.cat(both)


class Members:
    """Which rows share a prompt, and the rectangle [groups, width] they are laid in for it.

    `group_R` numbers the prompt of each row. In the rectangle a group with fewer than `width` rows
    repeats one, and the repetition is left out on the way back.
    """

    def __init__(self, group_R: torch.Tensor, groups: int, least_width: int = 0) -> None:
        count_P = torch.bincount(group_R, minlength=groups)
        self.groups, self.width = groups, max(int(count_P.max()), least_width)
        order = group_R.argsort(stable=True)
        row_R = torch.arange(len(order), device=order.device)
        start_P = count_P.cumsum(0) - count_P
        self.slot_R = torch.empty_like(order)
        self.slot_R[order] = group_R[order] * self.width + row_R - start_P[group_R[order]]
        self.row_S = order.new_zeros(self.groups * self.width)
        self.row_S[self.slot_R] = row_R
        self.in_place = len(self.row_S) == len(row_R) and torch.equal(self.slot_R, row_R)
        self._ways: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def times(self, x_RKSA: torch.Tensor, matrix_PKAB: torch.Tensor) -> torch.Tensor:
        """Every row times its prompt's matrix, [rows, kv, shared, B]."""
        if self.in_place:
            return in_rectangle(x_RKSA, self.width, matrix_PKAB)
        rows, heads, shared, _ = x_RKSA.shape
        into_N, back_N = self._way(heads)
        x_NSA = x_RKSA.flatten(0, 1).index_select(0, into_N)
        out = x_NSA.view(self.groups, heads, -1, x_NSA.shape[2]) @ matrix_PKAB
        out_NSB = out.view(-1, shared, out.shape[3]).index_select(0, back_N)
        return out_NSB.view(rows, heads, shared, -1)

    def _way(self, heads: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Where [groups, heads, width] find their [rows, heads], and where these find theirs: one
        copy each way, in the order that the products have."""
        if heads not in self._ways:
            head_K1 = torch.arange(heads, device=self.row_S.device)[:, None]
            into_PKW = self.row_S.view(-1, 1, self.width) * heads + head_K1
            group_R1, place_R1 = (
                self.slot_R[:, None] // self.width,
                self.slot_R[:, None] % self.width,
            )
            back_RK = (group_R1 * heads + head_K1.T) * self.width + place_R1
            self._ways[heads] = into_PKW.flatten(), back_RK.flatten()
        return self._ways[heads]


def in_rectangle(x_SKSA: torch.Tensor, width: int, matrix_PKAB: torch.Tensor) -> torch.Tensor:
    """Rows times matrices, of which each belongs to the next `width` rows."""
    shape = (width, x_SKSA.shape[2])
    x = x_SKSA.unflatten(0, (len(matrix_PKAB), width)).transpose(1, 2).flatten(2, 3)
    out: torch.Tensor = (x @ matrix_PKAB).unflatten(2, shape).transpose(1, 2).flatten(0, 1)
    return out


Times = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""`Members.times`: every row times its prompt's matrix."""


def attended(
    q_RHD: torch.Tensor,
    keys: LayerKeys,
    seen: slice,
    times: Times | None,
    hidden: torch.Tensor | None,
) -> torch.Tensor:
    """What rows read of their prompts and of the slots `seen`, [R, heads * D].

    `hidden`, [R, 1, 1, keys], are the keys that a row must not see: of prompts first, then of
    slots; those beyond its end are seen. `times` is `None` where rows have prompts of their own.
    """
    scoring, rows = keys.scoring, len(q_RHD)
    own_k, own_v = keys.own_k[:rows, :, seen], keys.own_v[:rows, :, seen]
    q_RKSD = (q_RHD * scoring.scale).view(rows, own_k.shape[1], -1, own_k.shape[3])
    scores = q_RKSD @ own_k.transpose(-1, -2)
    if times is not None and keys.prompt_k is not None:
        scores = torch.cat([times(q_RKSD, keys.prompt_k.transpose(-1, -2)), scores], -1)
    if scoring.softcap is not None:
        scores = scoring.softcap * torch.tanh(scores / scoring.softcap)
    if hidden is not None:
        scores[..., : hidden.shape[-1]].masked_fill_(hidden, -1e30)
    weights = _softmax(scores, scoring.sinks).to(own_v.dtype)
    own = own_v.shape[2]
    out = weights[..., -own:] @ own_v
    if times is not None and keys.prompt_v is not None:
        out = out + times(weights[..., :-own], keys.prompt_v)
    return out.reshape(rows, -1)


def _softmax(scores: torch.Tensor, sinks: torch.Tensor | None) -> torch.Tensor:
    """float32 weights of [R, kv, shared, keys]; a sink takes part in the sum and has no value."""
    if sinks is None:
        return torch.softmax(scores, -1, dtype=torch.float32)
    rows, kv_heads = scores.shape[:2]
    sink = sinks.to(scores.dtype).view(1, kv_heads, -1, 1).expand(rows, -1, -1, 1)
    return torch.softmax(torch.cat([scores, sink], -1), -1, dtype=torch.float32)[..., :-1]
