"""Which scores of a suite a judge gives, and what is known of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from strop.judge.build import build_judge, judge_hash
from strop.judge.trust.card import read_card
from strop.recipe.judge import JudgeRecipe
from strop.recipe.loading.load import load
from strop.recipe.suite import ScoredTask, Suite, WinRateTask


def judges_of(suite: Suite) -> dict[str, dict[str, Any]]:
    """`{"help/win_rate": {"judge": "3f1c...", "card": "The judge is right on 72 % ...",
    "uncalibrated": None}}`: of every score that a judge gives, the hash of the judge, and what its
    card says in a sentence or why there is none."""
    return {score: _known(file) for score, file in _judged(suite)}


def _judged(suite: Suite) -> Iterator[tuple[str, str]]:
    for task in suite.tasks:
        if isinstance(task, WinRateTask):
            yield f"{task.name}/win_rate", task.judge
        elif isinstance(task, ScoredTask):
            for component in task.scores:
                if component.judge is not None:
                    yield f"{task.name}/{component.label}", component.judge


def _known(file: str) -> dict[str, Any]:
    recipe = load(JudgeRecipe, file)
    said = None
    if recipe.card is not None:
        said = str(read_card(recipe.card, build_judge(recipe))["sentence"])
    return {"judge": judge_hash(file), "card": said, "uncalibrated": recipe.uncalibrated}
