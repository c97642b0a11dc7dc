"""Engines asked in tests: completions of prompts that are nothing but ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from strop.engines.draws import DrawKey
from strop.engines.engine import PromptedTask, Sampling, in_groups, requests_of
from strop.engines.local.engine import LocalEngine
from strop.model.logprobs import TreeScorer
from strop.model.network import Policy
from strop.types import Completion, Origin, Task


class Words:
    """A tokenizer whose tokens are the words 0, 1, 2, ..."""

    eos_token_id = 2
    init_kwargs: ClassVar[dict[str, Any]] = {}

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        return list(map(int, tokens))

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(map(str, ids))


def engine_of(model: torch.nn.Module, **options: Any) -> LocalEngine:
    """The model as an engine, with tokens for words."""
    return LocalEngine("", Policy(model, Words(), False, TreeScorer(model)), **options)


def prompted(ids: Sequence[tuple[int, ...]]) -> list[PromptedTask]:
    """Prompts of these ids, for tasks without a text."""
    return [PromptedTask(Task("", {}, Origin("", n)), prompt) for n, prompt in enumerate(ids)]


def sample(
    engine: LocalEngine, prompts: Sequence[tuple[int, ...]], *,
    group_size: int, sampling: Sampling, seed: int, step: int,
) -> list[tuple[Completion, ...]]:  # fmt: skip
    """What training would draw in this step: a group per prompt, in order."""
    key = DrawKey(seed, "training", step)
    requests = requests_of(prompted(prompts), sampling, key, group_size)
    return in_groups(engine.generate(requests), group_size)
