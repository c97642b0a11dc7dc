"""Answers against others, by a judge."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

from strop.engines.recorded import RecordedEngine
from strop.errors import DataError
from strop.evals.ask import ask
from strop.judge.suspicion import suspicion
from strop.recipe.suite import GenerateTask, WinRateTask
from strop.recipe.train.reward import RewardComponent
from strop.recipe.train.rollout import SamplingRecipe
from strop.text.parse import spoken
from strop.text.templates import conversation
from strop.types import Answered, Rollout, Task

NAME = "win_rate"
SAMPLING = SamplingRecipe()
"""Recorded answers are not sampled."""


def win_rate_of(recipe: WinRateTask) -> GenerateTask:
    """The task as one of answers that are scored by the judge."""
    options = {"criterion": recipe.criterion} if recipe.criterion else {}
    component = RewardComponent(
        function="judge_win", judge=recipe.judge, name=NAME, options=options
    )
    return GenerateTask(
        kind="generate", name=recipe.name, data=recipe.data, sampling=recipe.sampling,
        samples=recipe.samples, slices=recipe.slices, scores=[component],
    )  # fmt: skip


def beside(rows: Sequence[Task], against: str) -> list[Task]:
    """The tasks with the recorded answers as their column `baseline`.

    Raises `DataError` for a task that has one already, and `MissingEvidenceError` for one that no
    answer was recorded to.
    """
    twice = next((row for row in rows if "baseline" in row.columns), None)
    if twice is not None:
        raise DataError("the row has a `baseline`, and the task says `against`",
                        where=str(twice.origin), fix="drop one of them")  # fmt: skip
    said = ask(RecordedEngine(against), rows, SAMPLING, 1, 0)
    return [
        replace(row, columns={**row.columns, "baseline": spoken(answered.completions[0].said)})
        for row, answered in zip(rows, said, strict=True)
    ]


def warn_of_attacks(name: str, said: Sequence[Rollout | Answered]) -> None:
    """Warn where answers look like an attack on the judge."""
    answers = [(rollout.task.prompt, one.said) for rollout in said for one in rollout.completions]
    prompts = [conversation(prompt) for prompt, _ in answers]
    for sentence in suspicion(prompts, [text for _, text in answers]).sentences:
        warnings.warn(f"{name}: {sentence}", stacklevel=2)
