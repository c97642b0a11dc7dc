"""Recipes that would waste a run, refused before any compute."""

from __future__ import annotations

from strop.errors import RecipeError
from strop.recipe.run import DpoRecipe, PolicyRecipe, Recipe, SftRecipe

CAREFUL_RATE = 1e-4
"""Full-parameter preference training above this rate is known to displace likelihood."""


def refuse(recipe: Recipe, *, force: bool) -> None:
    """Raise `RecipeError` for options that contradict each other or cannot end well.

    `force` accepts what is merely reckless, never what is contradictory.
    """
    if "overlong" in recipe.text.model_fields_set and not isinstance(recipe, SftRecipe | DpoRecipe):
        raise RecipeError(
            f"text.overlong is set, but method {recipe.method} does not read it",
            fix="drop it: documents are cut into pieces, prompts that are too long are dropped",
        )
    if isinstance(recipe, PolicyRecipe):
        _refuse_contradictory_rollout(recipe)
    reckless = (
        isinstance(recipe, DpoRecipe)
        and recipe.model.lora is None
        and recipe.optim.learning_rate > CAREFUL_RATE
    )
    if reckless and not force:
        raise RecipeError(
            f"optim.learning_rate {recipe.optim.learning_rate:g} is above {CAREFUL_RATE:g} for "
            "full-parameter DPO: such runs look perfect while the model forgets its task",
            fix="lower it (1e-6 to 1e-5 is usual), use model.lora, or pass --force",
        )


def _refuse_contradictory_rollout(recipe: PolicyRecipe) -> None:
    if recipe.rollout.max_tokens >= recipe.text.max_length:
        raise RecipeError(
            f"rollout.max_tokens {recipe.rollout.max_tokens} leaves no room for a prompt in "
            f"text.max_length {recipe.text.max_length}",
            fix="lower rollout.max_tokens or raise text.max_length",
        )
    low, high = recipe.objective.epsilon_low, recipe.objective.epsilon_high
    if low is not None and high is not None and high < low:
        raise RecipeError(
            f"objective.epsilon_high {high} is below epsilon_low {low}",
            fix="clip-higher means epsilon_high >= epsilon_low",
        )
    if all(component.weight == 0 for component in recipe.reward):
        raise RecipeError(
            "every reward has weight 0, so no completion is better than another",
            fix="give at least one reward a weight",
        )
