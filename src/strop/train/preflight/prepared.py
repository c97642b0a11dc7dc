"""A run with everything read and checked and nothing written: what `--dry-run` stops at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.data.bad_rows import SourceReport
from strop.data.order import DataMixture
from strop.engines.engine import PromptedTask
from strop.engines.served.server import About
from strop.model.arithmetic import Precision
from strop.model.probe import PROBE
from strop.recipe.train.methods import Offline, Online, Recipe
from strop.rewards.compose import Reward
from strop.rollout.environments import Way
from strop.text.trees import Rendered
from strop.train.loop.online import HeldOut
from strop.train.monitor.dev import DevSet
from strop.types import Branch, Record, Tree

PROBED, PROBED_TOKENS = 4, 64
"""How many sequences, and tokens of each, an adapter and its merged model are compared on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared(ABC):
    """The parts that every run has.

    `recipe` is the user's, with `text.max_length` within the model's positions; `replay` are
    demonstrations mixed in; `sources` report what was read from each source; `dev` is the suite
    measured during training; `muon` is the precision in which Muon orthogonalises.
    """

    recipe: Recipe
    folder: Path
    checks: dict[str, Any]
    mixture: DataMixture
    total_steps: int
    replay: Rendered | None
    sources: tuple[SourceReport, ...]
    dev: DevSet | None = None
    muon: Precision = "bfloat16"

    @abstractmethod
    def own_records(self) -> Iterator[Record]:
        """The method's own records."""

    @abstractmethod
    def sequences(self) -> Iterator[tuple[int, ...]]:
        """Token sequences as the run reads them."""

    def records(self) -> Iterator[Record]:
        """All training records: the method's own and the replayed ones."""
        yield from self.own_records()
        yield from self.replay.records if self.replay else ()

    def probes(self) -> Sequence[Tree]:
        """The first tokens of a few sequences as the run reads them, all tokens supervised."""
        first = [row for row, _ in zip(self.sequences(), range(PROBED), strict=False)]
        cut = [row[: PROBED_TOKENS + 1] for row in first if len(row) > 1]
        return [Tree(row[:1], (Branch(row[1:], (True,) * (len(row) - 1)),)) for row in cut] or PROBE


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedOffline(Prepared):
    """A run that trains on records: `rendered` are the method's own, `held_out` those of `eval`."""

    recipe: Offline
    rendered: Rendered
    held_out: Rendered | None

    def own_records(self) -> Iterator[Record]:
        yield from self.rendered.records

    def sequences(self) -> Iterator[tuple[int, ...]]:
        return ((*tree.trunk, *tree.branches[0].ids) for tree in self.rendered.trees)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedOnline(Prepared):
    """A run that trains on its own samples: prompts with their tasks, and the reward; what its
    servers hold, if it samples from servers, and how its episodes are played, if it has an
    environment; `first_prompt` is then what the policy reads of the first task, with what its
    environment said."""

    recipe: Online
    tasks: tuple[PromptedTask, ...]
    reward: Reward
    held_out: HeldOut | None
    server: About | None
    way: Way | None = None
    first_prompt: str | None = None

    def own_records(self) -> Iterator[Record]:
        return (prompt.task for prompt in self.tasks)

    def sequences(self) -> Iterator[tuple[int, ...]]:
        return (prompt.prompt_ids for prompt in self.tasks)
