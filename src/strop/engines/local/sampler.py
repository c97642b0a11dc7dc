"""The model in this process, as decoding needs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

from strop.engines.endings import stop_ids, stopped, text_of
from strop.engines.engine import Request, Sampling
from strop.engines.grammar import Grammar
from strop.engines.local.constrained import Grammars, Matcher
from strop.errors import UsageError
from strop.model.decode import Decoder, RereadDecoder, TreeDecoder, honours_plain
from strop.model.fixed import repeatable
from strop.model.logprobs import bare, eval_mode, honours_tree
from strop.model.network import Policy
from strop.model.plain import PlainStep
from strop.model.prefixes import Prefixes
from strop.model.routing import Record, expect_routers, recorded
from strop.types import Completion, Finish

FURTHER = 8
"""Tokens read before those that a stop string may stand in: the first ones of a text may lack a
space, or bytes of their first character."""


class KeptStep:
    """A model's layers, copied for decoding and kept from one sampling to the next; whoever changes
    weights or adapters forgets them."""

    def __init__(self) -> None:
        self._step: PlainStep | None = None

    def of(self, causal_lm: Any) -> PlainStep:
        if self._step is None:
            self._step = PlainStep(causal_lm, kept=True)
        return self._step

    def forget(self) -> None:
        self._step = None


class LocalSampler:
    """A transformers (or peft) model, its ways to decode, and where its answers end."""

    def __init__(self, policy: Policy, kept: KeptStep | None = None) -> None:
        self.policy, self.tokenizer = policy, policy.tokenizer
        self.causal_lm = bare(policy.model)
        self.by_tree = honours_tree(self.causal_lm)
        self.plain = self.by_tree and honours_plain(self.causal_lm)
        self.repeats = self.plain and repeatable(self.causal_lm)
        self.stop_ids = stop_ids(self.causal_lm, self.tokenizer)
        self.vocabulary = int(self.causal_lm.get_output_embeddings().weight.shape[0])
        self._kept = kept
        self._grammars = Grammars(self.tokenizer, self.vocabulary, self.stop_ids)

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Without dropout, whatever mode the model is in, in the policy's arithmetic."""
        with eval_mode(self.policy.model), self.policy.arithmetic():
            yield

    def expect_able(self, sampling: Sampling) -> None:
        """Raises `UsageError` for routes of a model without them, for a bias of tokens that there
        are not, and for a grammar that cannot be used."""
        if sampling.routes:
            expect_routers(self.causal_lm)
        if wrong := [token for token, _ in sampling.logit_bias if not 0 <= token < self.vocabulary]:
            raise UsageError(f"logit_bias names token {wrong[0]}: the model has {self.vocabulary}, "
                             "from 0 on")  # fmt: skip
        if sampling.grammar is not None:
            self.matcher(sampling.grammar)

    def matcher(self, grammar: Grammar) -> Matcher:
        """The beginning of a text of this grammar. What a grammar needs is made once."""
        return self._grammars.matcher(grammar)

    def recorded(self) -> AbstractContextManager[Record]:
        """Note to which experts tokens go within."""
        return recorded(self.causal_lm)

    def decoder(self, *, shared: bool, prefixes: Prefixes | None, weights: str) -> Decoder:
        """An empty decoder; `shared`: rows of one prompt have one copy of its keys."""
        if not self.by_tree:
            return RereadDecoder(self.causal_lm)
        return TreeDecoder(
            self.causal_lm, plain=self._step(), shared=shared, repeats=self.repeats,
            prefixes=prefixes, weights=weights,
        )  # fmt: skip

    def _step(self) -> PlainStep | None:
        if not self.plain:
            return None
        return PlainStep(self.causal_lm) if self._kept is None else self._kept.of(self.causal_lm)

    def said(self, sampling: Sampling, ids: list[int]) -> bool:
        """Whether the answer contains a stop string, which it did not before its last token.

        Only its end is read, and the whole where that may not be enough: a special token may have
        no text, every other one has a byte at least.
        """
        longest = max(len(stop.encode()) for stop in sampling.stop)
        tail = ids[-(longest + FURTHER) :]
        if self._special.isdisjoint(tail):
            near = text_of(self.tokenizer, tail, sampling)
            if not any(stop in near for stop in sampling.stop):
                return False
        text = text_of(self.tokenizer, ids, sampling)
        return any(stop in text for stop in sampling.stop)

    @cached_property
    def _special(self) -> frozenset[int]:
        return frozenset(self.tokenizer.all_special_ids)

    def completion(
        self,
        asked: Request,
        drawn: tuple[list[int], list[float], list[float]],
        finish: Finish,
        version: int,
    ) -> Completion:
        ids, logprobs, entropies = drawn
        text = stopped(text_of(self.tokenizer, ids, asked.sampling), asked.sampling)
        given = entropies if asked.sampling.entropies else None
        made = Completion.one_turn(ids, text, logprobs, finish, version, given)
        return replace(made, opened=asked.prompt.opened)
