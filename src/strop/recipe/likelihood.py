"""Tasks that read log-probs instead of answers, and tasks of lm-eval."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from strop.recipe.base import LocalPath
from strop.recipe.task import EvalTask
from strop.recipe.train.data import Sources


class ChoiceTask(EvalTask):
    """Multiple choice by log-prob: `<name>/acc`, `<name>/acc_norm` and `<name>/acc_bytes`.

    `delimiter` stands between a plain prompt and a choice (lm-eval's `target_delimiter`).
    """

    kind: Literal["choice"]
    data: Sources
    delimiter: str = " "


class PerplexityTask(EvalTask):
    """Mean log-prob per token of held-out text or answers, `<name>/logprob`.

    A text longer than `window` tokens (the model's context where none is given) is read in windows.
    """

    kind: Literal["perplexity"]
    data: Sources
    window: int | None = Field(None, ge=2)


class LmEvalTask(EvalTask):
    """Tasks of lm-eval, or of the user's own YAML files under `include_path`.

    Scores are `<name>/<task>/<metric>`; a task that bears the entry's own name is not named twice.
    """

    kind: Literal["lm_eval"]
    tasks: list[str] = Field(min_length=1)
    num_fewshot: int | None = Field(None, ge=0)
    limit: int | None = Field(None, ge=1)
    include_path: LocalPath | None = None
    chat_template: bool = False
