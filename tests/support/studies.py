"""A small decoding study."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from strop.engines.engine import Request
from strop.model.network import Policy
from strop.types import Completion
from tests.support.runs import EQUATIONS

STUDY: dict[str, Any] = {
    "data": "tasks.jsonl",
    "scores": [{"function": "exact_answer"}],
    "serving_temperature": 0.7,
    "temperatures": [0, 0.7],
    "samples": 4,
    "sampling": {"max_tokens": 12},
    "seed": 5,
}


class Planted:
    """A sampler with known answers: what one side says greedily, sampled, and when asked again."""

    says: ClassVar[dict[str, tuple[list[str], list[str], list[str]]]] = {}
    by_tree = False

    def __init__(self, policy: Policy, kept: object = None) -> None:
        self.side = Path(policy.model.name_or_path).name.rstrip("0123456789")
        self.tokenizer = policy.tokenizer

    def answer(self, request: Request) -> Completion:
        which = 2 if request.key.round else 1 if request.sampling.temperature else 0
        asked = self.tokenizer.decode(request.prompt.prompt_ids)
        x = next(e.x for e in EQUATIONS if e.question in asked)
        said = self.says[self.side][which]
        text = said[request.key.index % len(said)].replace("X", str(x))
        # as many tokens as a planted answer has words
        return Completion.one_turn((1,) * len(text.split()), text, None, "stop")


class PlantedAnswers:
    """What decodes with such a sampler: all answers at once."""

    def __init__(self, sampler: Planted, *_: Any) -> None:
        self.sampler, self.asked = sampler, list[tuple[int, Request]]()

    @property
    def busy(self) -> int:
        return len(self.asked)

    def add(self, requests: Iterable[tuple[int, Request]]) -> None:
        self.asked.extend(requests)

    def step(self, tokens: int) -> list[tuple[int, Completion]]:
        asked, self.asked = self.asked, []
        return [(number, self.sampler.answer(request)) for number, request in asked]
