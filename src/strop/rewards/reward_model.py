"""A trained reward model as a reward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from strop.judge.asking.reward_model import reward_scores
from strop.types import Text


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
    return [*reward_scores(model, prompts, completions, tools)]
