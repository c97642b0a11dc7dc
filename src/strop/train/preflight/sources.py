"""Data sources by their role, read and rendered: a method's own records, prompts, replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from strop.data.records import PARSERS, fits, task
from strop.data.sources import first_row, read, sieve_of, stream
from strop.engines.engine import PromptedTask, prompted_tasks
from strop.errors import DataError
from strop.recipe.train.data import DataSource, TextRecipe
from strop.recipe.train.methods import METHODS
from strop.recipe.train.run import TrainRecipe
from strop.text.trees import Add, Rendered, Tally, all_too_long, joined, render_into
from strop.train.preflight.selfcheck import check_rendered
from strop.train.preflight.tokenised import HowTokenised, TokenCache


@dataclass(frozen=True, slots=True)
class Roles:
    """A recipe's sources by role: the method's own, and those that are replayed (with the kind of
    their records)."""

    own: tuple[DataSource, ...]
    replay: tuple[tuple[DataSource, str], ...]


def by_role(recipe: TrainRecipe, kind: str) -> Roles:
    """Which sources hold the method's own records and which are replayed beside them.

    Only a source with a weight can be a replayed one: its rows are demonstrations (or, beside
    demonstrations, documents) where the method learns from something else.
    """
    own: list[DataSource] = []
    replay: list[tuple[DataSource, str]] = []
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


def _replay_kind(source: DataSource, kind: str) -> str | None:
    first = first_row(source)
    if first is None or (kind != "task" and fits(kind, first)):
        return None
    others = [other for other in ("demonstration", "document") if other != kind]
    return next((other for other in others if fits(other, first)), None)


class Reading:
    """Reads and renders the sources of one recipe."""

    def __init__(self, text: TextRecipe, tokenizer: Any, cache: TokenCache) -> None:
        self.text, self.tokenizer, self.cache = text, tokenizer, cache

    def rendered(self, source: DataSource, kind: str, *, held_out: bool = False) -> Rendered:
        """The records of a source as trees. Raises `DataError` where too many of them are bad, or
        all of them too long."""
        sieve = sieve_of(source, held_out=held_out)

        def make(add: Add) -> Tally:
            tally = render_into(
                add,
                self.tokenizer,
                stream(source, PARSERS[kind], sieve, held_out=held_out),
                max_length=self.text.max_length,
                cut_overlong=self.text.overlong == "cut",
                on_bad=sieve.drop,
                on_long=lambda record: None,
            )
            sieve.expect_clean()
            if not tally.branches:
                raise all_too_long(tally.dropped, self.text.max_length)
            return tally

        how = HowTokenised(source, kind, self.text, self.tokenizer, held_out)
        return self.cache.rendered(how, sieve, make)

    def replay(self, sources: Roles) -> list[Rendered]:
        """The sources that are replayed beside a method's own records."""
        parts = [self.rendered(source, kind) for source, kind in sources.replay]
        for part in parts:
            check_rendered(part)
        return parts


def replay_checks(replay: Sequence[Rendered]) -> dict[str, int]:
    if not replay:
        return {}
    whole = joined(replay)
    return {"replayed": len(whole.trees), "replayed_dropped": whole.dropped}


@dataclass(frozen=True, slots=True)
class Prompted:
    """Rendered prompts that leave room for an answer, and how many did not."""

    tasks: tuple[PromptedTask, ...]
    dropped: int


def prompted(
    sources: Sequence[DataSource], tokenizer: Any, room: int, *, held_out: bool = False
) -> Prompted:
    """Tasks of these sources whose prompt has at most `room` tokens."""
    records = read(sources, task, held_out=held_out)
    kept = tuple(
        prompt
        for prompt in prompted_tasks(tokenizer, records)
        if 0 < len(prompt.prompt_ids) <= room
    )
    if not kept:
        raise DataError(
            f"all {len(records)} prompts are longer than {room} tokens",
            fix="raise text.max_length or lower rollout.max_tokens",
        )
    return Prompted(kept, len(records) - len(kept))
