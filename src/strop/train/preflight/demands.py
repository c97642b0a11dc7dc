"""What a family of methods demands of its own records beyond their form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from strop.errors import DataError
from strop.recipe.train.methods import Family, Recipe
from strop.recipe.train.offline import RewardModelRecipe, UnpairedRecipe
from strop.text.trees import Rendered
from strop.train.methods.reward_model import margins_of
from strop.types import Feedback

Checks = dict[str, Any]


def both_labels(recipe: UnpairedRecipe, rendered: Rendered) -> Checks:
    """The share of thumbs up; raises `DataError` unless both kinds of thumb are there."""
    labels = [record.label for record in rendered.records if isinstance(record, Feedback)]
    if len(set(labels)) < 2:
        raise DataError(
            f"all {len(labels)} records have label {str(labels[0]).lower()}",
            where=str(rendered.records[0].origin),
            fix="add records of the other label, or use method sft for liked answers alone",
        )
    return {"liked": sum(labels) / len(labels)}


def with_margins(recipe: RewardModelRecipe, rendered: Rendered) -> Checks:
    """Raises `DataError` where a pair lacks the margin that the recipe reads."""
    if recipe.objective.margin is not None:
        margins_of(rendered, recipe.objective.margin)
    return {}


def nothing_more(recipe: Recipe, rendered: Rendered) -> Checks:
    """For methods that accept every well-formed record."""
    return {}


DEMANDS: Mapping[Family, Callable[[Any, Rendered], Checks]] = {
    "unpaired": both_labels,
    "reward_model": with_margins,
}
