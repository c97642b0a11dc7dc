"""Prompts, answers and their rewards, without a model that writes them."""

from __future__ import annotations

import random
from typing import Any, ClassVar

from tests.support.families import VOCABULARY


class Words:
    """A tokenizer whose tokens are the words 0, 1, 2, ..."""

    eos_token_id = 2
    all_special_ids: ClassVar[list[int]] = []
    init_kwargs: ClassVar[dict[str, Any]] = {}

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        return list(map(int, tokens))

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(map(str, ids))


def prompts(count: int = 6, longest: int = 12) -> list[tuple[int, ...]]:
    pick = random.Random(5)
    return [
        tuple(pick.randrange(8, VOCABULARY) for _ in range(pick.randint(1, longest)))
        for _ in range(count)
    ]
