"""Which tokens of prompts are read, each once, and where the keys of each prompt are then found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from strop.model.prefixes import Known
from strop.model.tree import AttentionPlan, lay_out, plan_attention
from strop.types import Branch, Tree

COMMON_FROM = 8
"""Tokens that prompts have to have in common to be read together."""


def common_beginning(prompts: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all prompts begin with (a system prompt, the template's first tag), so that
    something is left of each; 0 where it is not worth while."""
    first, last = min(prompts), max(prompts)  # the others lie between these two
    shortest = min(map(len, prompts)) - 1
    common = next((n for n in range(shortest) if first[n] != last[n]), shortest)
    return common if common >= COMMON_FROM and len(prompts) > 1 else 0


@dataclass(frozen=True, slots=True)
class Reading:
    """One row of the tokens to read, and the plan of its attention.

    `plan.keys` and `gather_PL` index the keys [known | read]; `gather_PL` has every prompt's
    tokens, padded before or after them; `last_P` is each prompt's last token among those read.
    """

    tokens_L: torch.Tensor
    positions_L: torch.Tensor
    plan: AttentionPlan
    known: tuple[Known, ...]
    gather_PL: torch.Tensor
    lengths_P: torch.Tensor
    last_P: torch.Tensor
    flush_left: bool

    @property
    def longest(self) -> int:
        return self.gather_PL.shape[1]

    def places(self) -> list[torch.Tensor]:
        """Where each prompt's tokens are among those read; nothing may be known of them."""
        return [
            places_L[:length] if self.flush_left else places_L[self.longest - length :]
            for places_L, length in zip(self.gather_PL, self.lengths_P.tolist(), strict=True)
        ]

    def with_known(
        self, layer: int, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The keys and values of a layer after those that are known, [1, kv, tokens, D]."""
        if not self.known:
            return key, value
        pairs = [one.layer(layer) for one in self.known]
        known_k = torch.cat([k for k, _ in pairs], 1)[None]
        known_v = torch.cat([v for _, v in pairs], 1)[None]
        return torch.cat([known_k, key], 2), torch.cat([known_v, value], 2)


def read_of(
    prompts: Sequence[tuple[int, ...]],
    known: Sequence[Known | None],
    device: torch.device,
    *,
    flush_left: bool,
) -> Reading:
    """What is known of a prompt is not read, what prompts have in common only once."""
    parts = list(_parts(prompts, known))
    batch = lay_out([part.tree for part in parts], device)
    told = {n: part.known for n, part in enumerate(parts) if part.known is not None}
    rows = {}
    branches = iter(batch.branch_spans)
    for part, (start, stop) in zip(parts, batch.trunk_spans, strict=True):
        for prompt in part.prompts:
            rest = next(branches) if part.tree.branches else (stop, stop)
            rows[prompt] = (start, stop - start, rest[0], rest[1] - rest[0])
    place_P4 = torch.tensor([rows[n] for n in range(len(prompts))], device=device)
    start_P1, common_P1, rest_P1, left_P1 = place_P4.T[:, :, None]
    lengths_P1 = common_P1 + left_P1
    place_PL = torch.arange(int(lengths_P1.max()), device=device).expand(len(prompts), -1)
    if not flush_left:
        place_PL = place_PL - (lengths_P1.max() - lengths_P1)
    padding_PL = (place_PL < 0) | (place_PL >= lengths_P1)
    gather_PL = torch.where(place_PL < common_P1, start_P1 + place_PL,
                            rest_P1 + place_PL - common_P1)  # fmt: skip
    gather_PL = gather_PL.masked_fill(padding_PL, 0)
    last_P = torch.where(left_P1 > 0, rest_P1 + left_P1, start_P1 + common_P1)[:, 0] - 1
    reading = Reading(
        batch.tokens_L, batch.positions_L, plan_attention(batch, told), tuple(told.values()),
        gather_PL, lengths_P1[:, 0], last_P, flush_left,
    )  # fmt: skip
    spans = [batch.trunk_spans[n] for n in told]
    return _without(reading, spans) if told else reading


@dataclass(frozen=True, slots=True)
class Part:
    """Prompts that are one tree: what they have in common, known or not, and their rests."""

    tree: Tree
    prompts: tuple[int, ...]
    known: Known | None = None


def _parts(prompts: Sequence[tuple[int, ...]], known: Sequence[Known | None]) -> Iterator[Part]:
    alike: dict[tuple[int, ...], list[int]] = {}
    for number, (prompt, found) in enumerate(zip(prompts, known, strict=True)):
        alike.setdefault(prompt[: found.length] if found else (), []).append(number)
    for begun, numbers in alike.items():
        if begun:
            yield _part(prompts, numbers, len(begun), known[numbers[0]])
            continue
        common = common_beginning([prompts[n] for n in numbers])
        if common:
            yield _part(prompts, numbers, common, None)
        else:
            yield from (Part(Tree(prompts[n], ()), (n,)) for n in numbers)


def _part(
    prompts: Sequence[tuple[int, ...]], numbers: list[int], common: int, known: Known | None
) -> Part:
    rests = [prompts[n][common:] for n in numbers]
    branches = tuple(Branch(ids, (False,) * len(ids)) for ids in rests)
    return Part(Tree(prompts[numbers[0]][:common], branches), tuple(numbers), known)


def _without(reading: Reading, spans: Sequence[tuple[int, int]]) -> Reading:
    """The same without reading the tokens in `spans`, whose keys come before all others."""
    fresh_L = torch.ones_like(reading.tokens_L, dtype=torch.bool)
    for start, stop in spans:
        fresh_L[start:stop] = False
    read_L = fresh_L.cumsum(0) - 1
    known = int((~fresh_L).sum())
    key_L = torch.where(fresh_L, known + read_L, (~fresh_L).cumsum(0) - 1)
    plan = replace(
        reading.plan,
        queries=read_L[reading.plan.queries].clamp(min=0),  # padding may repeat what is not read
        keys=key_L[reading.plan.keys],
    )
    return replace(
        reading,
        tokens_L=reading.tokens_L[fresh_L],
        positions_L=reading.positions_L[fresh_L],
        plan=plan,
        gather_PL=key_L[reading.gather_PL],
        last_P=read_L[reading.last_P],
    )
