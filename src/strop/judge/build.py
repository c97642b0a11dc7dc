"""The judge that a recipe names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.data.sources import data_hash
from strop.engines.build import folder_engine
from strop.engines.engine import Engine, sampling_of
from strop.engines.openai import OpenAIEngine
from strop.engines.recorded import RecordedEngine
from strop.errors import RecipeError
from strop.files import SHORT, sha256_hex, sha256_of
from strop.http import RequestLimits
from strop.judge.asking.forms import FormName
from strop.judge.asking.judges import Judge, TextJudge
from strop.judge.asking.reward_model import RewardModelJudge
from strop.judge.panel.together import Chain, Voters
from strop.judge.panel.votes import log_odds
from strop.judge.trust.card import expect_card, read_card, without_places
from strop.recipe.judge import JudgeRecipe, Vote
from strop.recipe.loading.load import load


def build_judge(recipe: JudgeRecipe) -> Judge:
    """Nothing is loaded or asked yet. Raises `RecipeError` for a panel within a panel, and for a
    vote that needs a card which a member does not have."""
    if recipe.reward_model is not None:
        return RewardModelJudge(recipe.reward_model)
    if recipe.panel is not None:
        return _panel(recipe.panel, recipe.vote)
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


def trusted_judge(path: str | Path, form: FormName) -> TrustedJudge:
    """The judge of a file, which has to name its card, of the form in which it will be asked, or
    say why there is none.

    Raises `RecipeError` for a file that does neither, a card that is not this judge's or of another
    form, and one that says that the judge is no better than chance.
    """
    recipe = load(JudgeRecipe, str(path))
    judge = build_judge(recipe)
    if recipe.card is not None:
        return TrustedJudge(judge, expect_card(recipe.card, judge, form))
    if recipe.uncalibrated is None:
        raise RecipeError(
            "nobody knows how far this judge agrees with people", where=str(path),
            fix="write its card (strop judge calibrate) and name it under `card`, or say under "
            "`uncalibrated` why it is used without one",
        )  # fmt: skip
    return TrustedJudge(judge, None)


def judge_hash(path: str | Path) -> str:
    """Hash of all that the verdicts of a judge's file depend on: models, words, card. One that was
    moved to another folder keeps it."""
    recipe = load(JudgeRecipe, str(path))
    card = None if recipe.card is None else sha256_of(Path(recipe.card))
    known = [without_places(build_judge(recipe).identity()), card]
    return sha256_hex(json.dumps(known, sort_keys=True), SHORT)


def calibrated_on(recipe: JudgeRecipe, anchors: str | Path) -> list[str]:
    """Files of a panel's members whose cards are of these anchors, where cards make its votes."""
    members = recipe.panel if recipe.panel is not None and recipe.vote != "majority" else []
    cards = {file: load(JudgeRecipe, file).card for file in members}
    known = data_hash([str(anchors)])
    return [
        file for file, card in cards.items()
        if card is not None and json.loads(Path(card).read_text())["anchors"]["sha256"] == known
    ]  # fmt: skip


def _panel(files: Sequence[str], vote: Vote) -> Judge:
    recipes = [load(JudgeRecipe, file) for file in files]
    nested = next((file for file, one in zip(files, recipes, strict=True) if one.panel), None)
    if nested is not None:
        raise RecipeError("a panel's judge is a panel itself", where=nested,
                          fix="name its judges in one list")  # fmt: skip
    judges = tuple(build_judge(recipe) for recipe in recipes)
    if vote == "majority":
        return Voters(judges)
    cards = [
        _member_card(recipe, judge, file, vote)
        for recipe, judge, file in zip(recipes, judges, files, strict=True)
    ]
    if vote == "weighted":
        return Voters(judges, tuple(map(_weight, cards)))
    limits = [card["threshold"] for card in cards]
    if not any(limits):
        raise RecipeError(
            "none of these judges agrees with people often enough at any confidence",
            where=files[0], fix="use vote: majority or weighted, or better judges",
        )  # fmt: skip
    return Chain(judges, tuple(None if one is None else float(one["confidence"]) for one in limits))


def _weight(card: Mapping[str, Any]) -> float:
    return log_odds(float(card["right"]["mean"]), int(card["decided"]))


def _member_card(recipe: JudgeRecipe, judge: Judge, file: str, vote: Vote) -> Mapping[str, Any]:
    """A member may be worse than chance: its weight is negative, and it is never sure enough."""
    if recipe.card is None:
        raise RecipeError(f"vote: {vote} takes what the card says of each judge", where=file,
                          fix="calibrate it (strop judge calibrate) and name its card")  # fmt: skip
    card = read_card(recipe.card, judge)
    if card["form"] != "pairwise":
        raise RecipeError(f"the card of a panel's judge has to be of pairs, not of {card['form']}",
                          where=file, fix="strop judge calibrate --form pairwise")  # fmt: skip
    return card


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
    return folder_engine(str(recipe.model), recipe.engine)
