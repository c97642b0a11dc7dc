"""Tasks for engines, and asking an engine all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from strop.engines.draws import DrawKey
from strop.engines.engine import Engine, Sampling, requests_of
from strop.types import Answer, Origin, Task

FREE = Sampling(temperature=1.0, max_tokens=8)


def tasks(*texts: str) -> list[Task]:
    return [Task(text, {"id": text}, Origin("t.jsonl", n)) for n, text in enumerate(texts, 1)]


def ask_all(engine: Engine, asked: Sequence[Task]) -> Iterator[tuple[int, Answer]]:
    prompts = engine.prompted(asked, FREE)
    return engine.generate(requests_of(prompts, FREE, DrawKey(0, "eval"), 1))
