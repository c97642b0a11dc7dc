"""Whom a data verb asks, and the answers it gets: part by part, kept while the work goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

from strop.curate.underway import Row, Underway
from strop.engines.build import folder_engine
from strop.engines.draws import DrawKey
from strop.engines.engine import Engine, Sampling, in_groups, requests_of
from strop.engines.openai import OpenAIEngine
from strop.http import RequestLimits
from strop.model.load import expect_weights
from strop.recipe.curate import Asked
from strop.types import Answer, Task

AT_ONCE = 256
"""Answers in one part: what is lost at most when a verb is killed."""

Advance = Callable[[int], None]


def quiet(count: int) -> None:
    """Told of work that is done, and says nothing."""


def engine_of(settings: Asked, output: Path | None) -> Engine:
    """The engine that the settings name. A server's answers are kept in `cache`, or beside the
    output; raises `ModelError` for a folder that holds no model."""
    assert settings.model is not None
    if settings.endpoint is None:
        expect_weights(settings.model)
        return folder_engine(settings.model, settings.engine)
    given: dict[str, Any] = {
        "at_once": settings.at_once,
        "per_second": settings.per_second,
        "most_requests": settings.requests,
        "most_tokens": settings.tokens,
    }
    limits = RequestLimits(**{name: value for name, value in given.items() if value is not None})
    return OpenAIEngine(
        settings.endpoint, settings.model, limits=limits, cache=cache_of(settings, output)
    )


def cache_of(settings: Asked, output: Path | None) -> Path | None:
    """`<output>.cache` unless the settings name another folder."""
    if settings.cache is not None:
        return Path(settings.cache)
    return None if output is None else output.with_name(f"{output.stem}.cache")


@dataclass(frozen=True, slots=True)
class Drawing:
    """`samples` answers of an engine to each prompt: what an answer depends on, besides its prompt.

    `Drawing(engine, Sampling(temperature=1.0), samples=8, seed=0)`.
    """

    engine: Engine
    sampling: Sampling
    samples: int
    seed: int

    def answers(
        self, tasks: Iterable[Task], underway: Underway, advance: Advance = quiet
    ) -> Iterator[tuple[Task, tuple[Answer, ...]]]:
        """Every task with its answers, in order; a part that is done is not asked again.

        Tasks are taken as they are needed. An answer depends on its prompt, the seed and its own
        number alone: a prompt that comes twice gets the same answers.
        """
        who = dict(self.engine.identity())
        for part in batches(tasks, max(1, AT_ONCE // self.samples)):
            asked = [[task.prompt, task.columns.get("tools")] for task in part]
            key = ["answers", who, self.sampling.plain(), self.samples, self.seed, asked]
            rows = underway.read(key)
            groups = self._asked(part) if rows is None else [_restored(row) for row in rows]
            if rows is None:
                underway.write(key, ({"answers": list(map(_plain, one))} for one in groups))
            advance(len(part))
            yield from zip(part, groups, strict=True)

    def _asked(self, tasks: Sequence[Task]) -> list[tuple[Answer, ...]]:
        prompts = self.engine.prompted(tasks, self.sampling)
        key = DrawKey(self.seed, "data")
        # prompt by prompt: one that comes twice gets the same answers, whatever part it is in
        requests = [
            request
            for prompt in prompts
            for request in requests_of([prompt], self.sampling, key, self.samples)
        ]
        return in_groups(self.engine.generate(requests), self.samples)


_KEPT = tuple(field.name for field in fields(Answer))


def _plain(answer: Answer) -> Row:
    return {name: getattr(answer, name) for name in _KEPT}


def _restored(row: Row) -> tuple[Answer, ...]:
    return tuple(Answer(**kept) for kept in row["answers"])


def batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` items, the last one shorter."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part
