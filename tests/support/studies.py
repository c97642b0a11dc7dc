"""A small decoding study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

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

    def __init__(self, model: Any, tokenizer: Any, **options: Any) -> None:
        self.side = Path(model.name_or_path).name.rstrip("0123456789")
        self.tokenizer = tokenizer

    def sample(
        self, prompts: Sequence[tuple[int, ...]], *, group_size: int, sampling: Any, seed: int,
        step: int,
    ) -> list[tuple[Completion, ...]]:  # fmt: skip
        said = self.says[self.side][2 if step else 1 if sampling.temperature else 0]
        made = []
        for prompt in prompts:
            asked = self.tokenizer.decode(prompt)
            x = next(e.x for e in EQUATIONS if e.question in asked)
            texts = [text.replace("X", str(x)) for text in said[:group_size]]
            # as many tokens as a planted answer has words
            made.append(tuple(Completion((1,) * len(t.split()), t, (), "stop") for t in texts))
        return made
