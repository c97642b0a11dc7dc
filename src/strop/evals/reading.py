"""Who says how likely given texts are: a model in this process, or servers that hold it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from strop.engines.engine import Engine
from strop.engines.served.fixed import FixedEngine
from strop.evals.continuations import context_of, read_continuations
from strop.model.network import Policy
from strop.text.encode import Tokenizer
from strop.types import Tree


class Reader(Protocol):
    """Log-probs of given texts; `context` are the tokens that the model reads."""

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def context(self) -> int: ...

    @property
    def longest(self) -> int:
        """Tokens of a trunk and a branch that can be read together."""

    def sums(self, trees: Sequence[Tree]) -> list[float]:
        """The log-prob of the supervised tokens of every branch, branch by branch, nats."""


@dataclass(frozen=True, slots=True)
class PolicyReader:
    """A model in this process."""

    policy: Policy

    @property
    def tokenizer(self) -> Tokenizer:
        return self.policy.tokenizer

    @property
    def context(self) -> int:
        return context_of(self.policy)

    @property
    def longest(self) -> int:
        return self.context + 1  # nothing is predicted from the last token

    def sums(self, trees: Sequence[Tree]) -> list[float]:
        return [one.logprob for one in read_continuations(self.policy, trees)]


@dataclass(frozen=True, slots=True)
class ServedReader:
    """Servers that hold a model folder."""

    engine: FixedEngine

    @property
    def tokenizer(self) -> Tokenizer:
        return self.engine.tokenizer()

    @property
    def context(self) -> int:
        return self.engine.positions

    @property
    def longest(self) -> int:
        return self.engine.longest()

    def sums(self, trees: Sequence[Tree]) -> list[float]:
        return [math.fsum(logprobs) for logprobs in self.engine.score(trees)]


def reader_of(engine: Engine) -> Reader:
    """Raises `UsageError` for an engine that gives no log-probs of given texts."""
    if isinstance(engine, FixedEngine):
        return ServedReader(engine)
    return PolicyReader(engine.policy())
