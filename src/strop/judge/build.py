"""The judge that a recipe names."""

from __future__ import annotations

from pathlib import Path

from strop.engines.engine import Engine, sampling_of
from strop.engines.local.engine import LocalEngine
from strop.engines.openai import OpenAIEngine
from strop.engines.recorded import RecordedEngine
from strop.http import RequestLimits
from strop.judge.judges import Judge, TextJudge
from strop.judge.reward_model import RewardModelJudge
from strop.recipe.judge import JudgeRecipe


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


def _engine(recipe: JudgeRecipe) -> Engine:
    if recipe.url is not None:
        limits = RequestLimits(**recipe.requests.model_dump())
        cache = None if recipe.cache is None else Path(recipe.cache)
        return OpenAIEngine(
            recipe.url, str(recipe.model_name), limits=limits, cache=cache, lenient=True
        )
    if recipe.recorded is not None:
        return RecordedEngine(recipe.recorded)
    return LocalEngine(str(recipe.model))
