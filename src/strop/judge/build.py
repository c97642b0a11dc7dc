"""The judge that a recipe names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.engines.engine import Engine, sampling_of
from strop.engines.local.engine import LocalEngine
from strop.engines.openai import OpenAIEngine
from strop.engines.recorded import RecordedEngine
from strop.errors import RecipeError
from strop.http import RequestLimits
from strop.judge.card import expect_card
from strop.judge.judges import Judge, TextJudge
from strop.judge.reward_model import RewardModelJudge
from strop.recipe.judge import JudgeRecipe
from strop.recipe.loading.load import load


def build_judge(recipe: JudgeRecipe) -> Judge:
    """Nothing is loaded or asked yet."""
    if recipe.reward_model is not None:
        return RewardModelJudge(recipe.reward_model)
    return TextJudge(
        _engine(recipe),
        templates=recipe.templates,
        sampling=sampling_of(recipe.sampling),
        seed=recipe.seed,
        by_likelihood=recipe.by_likelihood,
    )


@dataclass(frozen=True, slots=True)
class TrustedJudge:
    """A judge with what its card says of it; without a card where its file says why."""

    judge: Judge
    card: Mapping[str, Any] | None


def trusted_judge(path: str | Path) -> TrustedJudge:
    """The judge of a file, which has to name its card or say why there is none.

    Raises `RecipeError` for a file that does neither, a card that is not this judge's, and one that
    says that the judge is no better than chance.
    """
    recipe = load(JudgeRecipe, str(path))
    judge = build_judge(recipe)
    if recipe.card is not None:
        return TrustedJudge(judge, expect_card(recipe.card, judge))
    if recipe.uncalibrated is None:
        raise RecipeError(
            "nobody knows how far this judge agrees with people", where=str(path),
            fix="write its card (strop judge calibrate) and name it under `card`, or say under "
            "`uncalibrated` why it is used without one",
        )  # fmt: skip
    return TrustedJudge(judge, None)


def _engine(recipe: JudgeRecipe) -> Engine:
    if recipe.url is not None:
        limits = RequestLimits(**recipe.requests.model_dump())
        cache = None if recipe.cache is None else Path(recipe.cache)
        return OpenAIEngine(
            recipe.url,
            str(recipe.model_name),
            limits=limits,
            cache=cache,
            lenient=True,
            some_may_fail=True,
        )
    if recipe.recorded is not None:
        return RecordedEngine(recipe.recorded)
    return LocalEngine(str(recipe.model))
