"""Data sources by their role, read and rendered: a method's own records, prompts, replay."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from strop.data.bad_rows import Sieve, SourceReport
from strop.data.records import PARSERS, fits, task
from strop.data.sources import first_row, sieve_of, stream
from strop.engines.engine import PromptedTask
from strop.errors import DataError, StropError
from strop.recipe.train.data import DataSource, TextRecipe
from strop.recipe.train.methods import METHODS
from strop.recipe.train.run import TrainRecipe
from strop.rollout.environments import with_tools
from strop.text.chat.template import Tools
from strop.text.render import opening, tried
from strop.text.script import PromptAndAnswers, asked_of
from strop.text.trees import Add, Rendered, Tally, all_too_long, joined, render_into
from strop.train.preflight.selfcheck import check_rendered
from strop.train.preflight.tokenised import HowTokenised, TokenCache
from strop.types import RecordKind, Task

TOO_LONG = "too_long"
"""The kind of a row that is left out because it does not fit into `text.max_length`."""

REPLAYED: tuple[RecordKind, ...] = ("demonstration", "document")
"""What may be replayed beside a method's own records."""


@dataclass(frozen=True, slots=True)
class Roles:
    """A recipe's sources by role: the method's own, and those that are replayed (with the kind of
    their records)."""

    own: tuple[DataSource, ...]
    replay: tuple[tuple[DataSource, RecordKind], ...]


def by_role(recipe: TrainRecipe, kind: RecordKind) -> Roles:
    """Which sources hold the method's own records and which are replayed beside them.

    A replayed source needs a weight, and its rows are demonstrations where the method trains on
    another kind, or documents where the method trains on demonstrations.
    """
    own: list[DataSource] = []
    replay: list[tuple[DataSource, RecordKind]] = []
    for source in recipe.data:
        other = None if source.weight is None else _replay_kind(source, kind)
        if other is None:
            own.append(source)
        else:
            replay.append((source, other))
    if replay and METHODS[recipe.method].scalar_head:
        raise DataError(
            "a reward model writes no text, so demonstrations cannot be replayed beside its pairs",
            where=replay[0][0].name,
            fix="drop this source from `data`",
        )
    if not own:
        raise DataError(
            f"every source holds demonstrations, so method {recipe.method} has nothing to learn "
            "from",
            where=recipe.data[0].name,
            fix=f"add a source with the method's own records ({kind})",
        )
    return Roles(tuple(own), tuple(replay))


def _replay_kind(source: DataSource, kind: RecordKind) -> RecordKind | None:
    first = first_row(source)
    if first is None or (kind != "task" and fits(kind, first)):
        return None
    others = (other for other in REPLAYED if other != kind)
    return next((other for other in others if fits(other, first)), None)


@dataclass(frozen=True, slots=True)
class Prompted:
    """Rendered prompts that leave room for an answer, and how many did not."""

    tasks: tuple[PromptedTask, ...]
    dropped: int


class Reading:
    """Reads and renders the sources of one recipe, and keeps a report of each. Prompts show the
    `tools` of the recipe's environment."""

    def __init__(
        self, text: TextRecipe, tokenizer: Any, cache: TokenCache, tools: Tools = None
    ) -> None:
        self.text, self.tokenizer, self.cache, self.tools = text, tokenizer, cache, tools
        self.reports: list[SourceReport] = []

    def rendered(self, source: DataSource, kind: RecordKind, *, held_out: bool = False) -> Rendered:
        """The records of a source as trees. Raises `DataError` where too many of them are bad, or
        all of them too long."""
        sieve = sieve_of(source, held_out=held_out)
        most = self.text.max_length

        def make(add: Add) -> Tally:
            tally = render_into(
                add,
                self.tokenizer,
                stream(source, PARSERS[kind], sieve, held_out=held_out),
                max_length=most,
                cut_overlong=self.text.overlong == "cut",
                on_bad=sieve.drop,
                on_long=lambda record: sieve.leave_out(
                    TOO_LONG, f"longer than {most} tokens", record.origin
                ),
            )
            sieve.expect_clean()
            if not tally.branches:
                raise all_too_long(tally.dropped, most) if tally.dropped else sieve.none_left()
            return tally

        how = HowTokenised(source, kind, self.text, self.tokenizer, held_out)
        found = self.cache.rendered(how, sieve, make)
        self._report(sieve, kind)
        return found

    def replay(self, sources: Roles) -> list[Rendered]:
        """The sources that are replayed beside a method's own records."""
        parts = [self.rendered(source, kind) for source, kind in sources.replay]
        for part in parts:
            check_rendered(part)
        return parts

    def prompted(self, source: DataSource, room: int, *, held_out: bool = False) -> Prompted:
        """Tasks of a source whose prompt has at most `room` tokens."""
        sieve = sieve_of(source, held_out=held_out)
        kept: list[PromptedTask] = []
        long = 0
        read = stream(source, task, sieve, held_out=held_out)
        tasks = (with_tools(one, self.tools) for one in read)
        for found, ids in self._prompts(tasks, sieve):
            if 0 < len(ids) <= room:
                kept.append(PromptedTask(found, ids, opening(self.tokenizer, found.prompt, ids)))
            else:
                long += 1
                sieve.leave_out(TOO_LONG, f"longer than {room} tokens", found.origin)
        sieve.expect_clean()
        if not kept and not long:
            raise sieve.none_left()
        if not kept:
            raise DataError(
                f"all {long} prompts are longer than {room} tokens",
                where=source.name,
                fix="raise text.max_length or lower rollout.max_tokens",
            )
        self._report(sieve, "task")
        return Prompted(tuple(kept), long)

    def _prompts(
        self, tasks: Iterator[Task], sieve: Sieve
    ) -> Iterator[tuple[Task, tuple[int, ...]]]:
        """Tasks with the ids of their prompts, without those that no template can render."""
        waiting: deque[Task] = deque()

        def asked() -> Iterator[PromptAndAnswers]:
            for one in tasks:
                waiting.append(one)
                yield asked_of(one)

        for tree in tried(self.tokenizer, asked()):
            one = waiting.popleft()
            if isinstance(tree, StropError):
                sieve.drop(tree, one.origin)
            else:
                yield one, tree.trunk

    def _report(self, sieve: Sieve, kind: RecordKind) -> None:
        self.reports.append(SourceReport(sieve.name, kind, dict(sieve.forms), sieve.dropped))


def replay_checks(replay: Sequence[Rendered]) -> dict[str, int]:
    if not replay:
        return {}
    whole = joined(replay)
    return {"replayed": len(whole.trees), "replayed_dropped": whole.dropped}
