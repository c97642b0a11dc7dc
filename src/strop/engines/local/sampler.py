"""Decoding with the model in this process: many answers at a time, each with its own random
numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np
import torch

from strop.engines.draws import Uniforms, uniforms
from strop.engines.endings import stop_ids, stopped, text_of
from strop.engines.engine import Request, Sampling
from strop.engines.local.distribution import draw, entropy, kept_logits
from strop.model.decode import Decoder, RereadDecoder, TreeDecoder, honours_plain, places
from strop.model.logprobs import bare, eval_mode, honours_tree
from strop.model.network import Policy
from strop.model.routing import Record, expect_routers, packed, recorded
from strop.types import Completion, Finish, Routes

REPACK_BELOW = 0.9
"""The decoder's rows are repacked when fewer than this share of them is still wanted."""


class DrawnTokens:
    """Tokens, their log-probs, entropies and whether they end the answer: a row per completion, a
    column per round. Columns after a row's first end are never read."""

    def __init__(self, rows: int, rounds: int, device: torch.device) -> None:
        self.ids_RT = torch.zeros(rows, rounds, dtype=torch.long, device=device)
        self.logprobs_RT = torch.zeros(rows, rounds, device=device)
        self.entropies_RT = torch.zeros(rows, rounds, device=device)
        self.ends_RT = torch.zeros(rows, rounds, dtype=torch.bool, device=device)

    def completions(self) -> Iterator[tuple[list[int], list[float], list[float], Finish]]:
        """Ids, log-probs, entropies and finish reason, row by row."""
        stopped_R = self.ends_RT.any(1)
        length_R = torch.where(stopped_R, self.ends_RT.int().argmax(1) + 1, self.ends_RT.shape[1])
        rows = (self.ids_RT, self.logprobs_RT, self.entropies_RT, length_R, stopped_R)
        for ids, logprobs, entropies, length, ended in zip(
            *(x.tolist() for x in rows), strict=True
        ):
            finish: Finish = "stop" if ended else "length"
            yield ids[:length], logprobs[:length], entropies[:length], finish


class DrawnRoutes:
    """The experts of the prompts, and those of every drawn token that was read: one entry a
    round."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.prompts: list[Routes] = []
        self.rows: list[torch.Tensor] = []
        self.experts: list[torch.Tensor] = []

    def read_prompts(self, decoder: Decoder) -> None:
        """Call after `prefill`."""
        self.prompts = [self._packed(seen) for seen in decoder.of_prompts(self.record.last())]

    def read_tokens(self, decoder: Decoder, row_A: torch.Tensor, stem_A: torch.Tensor) -> None:
        """Call after `step`: answer `row_A` has read the token of stem `stem_A`."""
        self.rows.append(row_A)
        self.experts.append(decoder.of_tokens(self.record.last())[stem_A])

    def of_answers(self, answers: int) -> list[Routes]:
        """The routes of each answer's tokens in order, without the last one."""
        nothing = self.record.last()[:0]
        experts_N = torch.cat([nothing, *self.experts])
        row_N = torch.cat([torch.zeros(0, dtype=torch.long, device=nothing.device), *self.rows])
        sizes = torch.bincount(row_N, minlength=answers).tolist()
        by_row_N = experts_N[row_N.argsort(stable=True)]
        return [self._packed(part) for part in by_row_N.split(sizes)]

    def _packed(self, experts_TLC: torch.Tensor) -> Routes:
        return packed(experts_TLC, self.record.experts)


class LocalSampler:
    """Samples from a transformers (or peft) model.

    Every completion has the counter-based random stream of its draw key, so it depends neither on
    the order nor on the other completions.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy, self.tokenizer = policy, policy.tokenizer
        self.causal_lm = bare(policy.model)
        self.by_tree = honours_tree(self.causal_lm)
        self.plain = self.by_tree and honours_plain(self.causal_lm)
        self.stop_ids = stop_ids(self.causal_lm, self.tokenizer)

    @torch.no_grad()
    def sample(self, requests: Sequence[Request], version: int) -> list[Completion]:
        """The completions of requests with one `sampling`, in order; without dropout, whatever mode
        the model is in."""
        sampling = requests[0].sampling
        numbers = np.stack([uniforms(one.key, sampling.max_tokens) for one in requests])
        prompts = [one.prompt.prompt_ids for one in requests]
        with eval_mode(self.policy.model), self.policy.arithmetic(), self._record(sampling) as seen:
            routes = None if seen is None else DrawnRoutes(seen)
            drawn = self._decode(prompts, numbers, sampling, routes)
            made = [
                self._completion(one, row, version)
                for one, row in zip(requests, drawn.completions(), strict=True)
            ]
        if routes is None:
            return made
        distinct = dict(zip(dict.fromkeys(prompts), routes.prompts, strict=True))
        return [
            replace(one, prompt_routes=distinct[prompt], routes=tokens)
            for one, prompt, tokens in zip(made, prompts, routes.of_answers(len(made)), strict=True)
        ]

    def _record(self, sampling: Sampling) -> AbstractContextManager[Record | None]:
        """Raises `UsageError` where routes are asked of a model that has none."""
        if not sampling.routes:
            return nullcontext()
        expect_routers(self.causal_lm)
        return recorded(self.causal_lm)

    def _decode(
        self,
        prompts: list[tuple[int, ...]],
        numbers: Uniforms,
        sampling: Sampling,
        routes: DrawnRoutes | None,
    ) -> DrawnTokens:
        """Draw one token per round for every unfinished answer; `row_A` are their request numbers.

        Answers with the same beginning share one row of the decoder, `stem_A`, until they differ.
        """
        device = self.causal_lm.device
        uniforms_RT = torch.from_numpy(numbers).to(device)
        rows, rounds = numbers.shape
        drawn, decoder = DrawnTokens(rows, rounds, device), self._decoder()
        distinct = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
        logits = decoder.prefill(list(distinct), rows)
        if routes is not None:
            routes.read_prompts(decoder)
        stem_A = torch.tensor([distinct[prompt] for prompt in prompts], device=device)
        stop_S = torch.tensor(sorted(self.stop_ids), device=device)
        row_A = torch.arange(rows, device=device)
        for place in range(rounds):
            if sampling.entropies:
                drawn.entropies_RT[row_A, place] = entropy(logits)[stem_A]
            allowed = kept_logits(logits, sampling)
            token_A, logprob_A = draw(allowed, stem_A, uniforms_RT[row_A, place])
            drawn.ids_RT[row_A, place] = token_A
            drawn.logprobs_RT[row_A, place] = logprob_A
            ends_A = (token_A[:, None] == stop_S).any(1)
            if sampling.stop:
                ends_A |= self._said(sampling, drawn.ids_RT[row_A, : place + 1])
            drawn.ends_RT[row_A, place] = ends_A
            goes_on = (~ends_A).nonzero().squeeze(1)
            row_A, stem_A, token_A = row_A[goes_on], stem_A[goes_on], token_A[goes_on]
            if not len(row_A) or place + 1 == rounds:
                break
            token_S, stem_A = _grow(decoder, stem_A, token_A, logits.shape)
            logits = decoder.step(token_S)
            if routes is not None:
                routes.read_tokens(decoder, row_A, stem_A)
        return drawn

    def _decoder(self) -> Decoder:
        if self.by_tree:
            return TreeDecoder(self.causal_lm, plain=self.plain)
        return RereadDecoder(self.causal_lm)

    def _said(self, sampling: Sampling, ids_AT: torch.Tensor) -> torch.Tensor:
        """Whether the answer so far contains a stop string, [A]."""
        texts = (text_of(self.tokenizer, ids, sampling) for ids in ids_AT.tolist())
        said = [any(stop in text for stop in sampling.stop) for text in texts]
        return torch.tensor(said, device=ids_AT.device)

    def _completion(
        self,
        asked: Request,
        drawn: tuple[list[int], list[float], list[float], Finish],
        version: int,
    ) -> Completion:
        ids, logprobs, entropies, finish = drawn
        text = stopped(text_of(self.tokenizer, ids, asked.sampling), asked.sampling)
        given = entropies if asked.sampling.entropies else None
        made = Completion.one_turn(ids, text, logprobs, finish, version, given)
        return replace(made, opened=asked.prompt.opened)


def _grow(
    decoder: Decoder, stem_A: torch.Tensor, token_A: torch.Tensor, shape: torch.Size
) -> tuple[torch.Tensor, torch.Tensor]:
    """The decoder's next tokens and every answer's new stem; `shape` is [stems, vocabulary].

    A stem whose answers drew different tokens becomes several.
    """
    stems, vocabulary = shape
    child_C, child_A = torch.unique(stem_A * vocabulary + token_A, return_inverse=True)
    parent_C, token_C = child_C // vocabulary, child_C % vocabulary
    parted = bool((parent_C[1:] == parent_C[:-1]).any())
    place_C = parent_C
    if parted or len(child_C) < REPACK_BELOW * stems:
        place_C, stems = places(parent_C), len(child_C)
        parent_S = torch.empty_like(parent_C)
        parent_S[place_C] = parent_C
        decoder.arrange(parent_S)
    token_S = token_C.new_zeros(stems)
    token_S[place_C] = token_C
    return token_S, place_C[child_A]
