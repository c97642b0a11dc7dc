"""A trained reward model as a reward."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from strop.model.load import load_reward_model
from strop.model.network import ScalarNetwork
from strop.text.render import answer_tree
from strop.text.script import tools_of
from strop.types import Text

TOKENS_AT_ONCE = 8192


@lru_cache(maxsize=1)
def _network(path: str, written: int) -> ScalarNetwork:
    return load_reward_model(path)


def _written(path: str) -> int:
    """When the newest file of a folder was written, so that a retrained model is loaded again."""
    return max((file.stat().st_mtime_ns for file in Path(path).glob("*")), default=0)


@torch.no_grad()
def reward_model(
    prompts: Sequence[Text],
    completions: Sequence[Text],
    *,
    model: str,
    tools: Sequence[Any] | None = None,
    **columns: object,
) -> list[float | None]:
    """A reward model's scalar for each answer; `model` is its folder.

    Answers are rendered with the reward model's own template and end with its own end-of-sequence
    token. Raises `ModelError` for a folder without a scalar head.
    """
    network = _network(model, _written(model))
    offered = tools if tools is not None else [None] * len(prompts)
    trees = [
        answer_tree(network.tokenizer, prompt, completion, tools_of(column))
        for prompt, completion, column in zip(prompts, completions, offered, strict=True)
    ]
    scores: list[float | None] = []
    held: list[int] = []
    for number, tree in enumerate(trees):
        held.append(number)
        full = sum(len(trees[i]) for i in held) + len(tree) > TOKENS_AT_ONCE
        if full or number == len(trees) - 1:
            scores += network.score.finals([trees[i] for i in held]).tolist()
            held = []
    return scores
