"""Bounds that the model sets: its number of positions, and a critic with the same tokens."""

from __future__ import annotations

import warnings

from strop.errors import ModelError, RecipeError
from strop.model.load import expect_weights, load_config, load_tokenizer, positions_of, tokenizer_of
from strop.recipe.train.methods import Recipe
from strop.recipe.train.online import OnlineRecipe
from strop.recipe.train.teacher import ModelTeacher
from strop.train.preflight.prepared import Prepared


def expect_critic(path: str, recipe: Recipe) -> None:
    """Raise `ModelError` unless the critic's folder holds weights for the policy's tokens, with or
    without those that the recipe's template adds."""
    expect_weights(path)
    policy = recipe.model
    mine = [tokenizer_of(policy).get_vocab(), tokenizer_of(policy, recipe.template).get_vocab()]
    if load_tokenizer(path, policy.trust_remote_code).get_vocab() not in mine:
        raise ModelError(
            "the critic was trained on other tokens than the policy's",
            where=path,
            fix="point `value.path` at a model of the same tokenizer",
        )


def within_positions(recipe: Recipe) -> Recipe:
    """The recipe with `text.max_length` no longer than what the model can read, and PPO's critic,
    and a teacher that reads the same prompts.

    Raises `RecipeError` where that leaves a rollout no room for a prompt.
    """
    paths = [recipe.model.path]
    if recipe.critic is not None:
        paths.append(recipe.critic.path)
    configs = [load_config(path, recipe.model.trust_remote_code) for path in paths]
    named = recipe.taught_by
    if isinstance(named, ModelTeacher) and not named.is_informed:
        configs.append(load_config(named.path, named.trust_remote_code))
    bounds = [bound for config in configs if (bound := positions_of(config)) is not None]
    asked, most = recipe.text.max_length, min(bounds, default=recipe.text.max_length)
    if asked <= most:
        return recipe
    if recipe.turn_tokens >= most:
        raise RecipeError(
            f"rollout.max_tokens {recipe.turn_tokens} leaves no room for a prompt in the "
            f"{most} positions of the model (or of its critic or teacher)",
            fix="lower rollout.max_tokens",
        )
    text = recipe.text.model_copy(update={"max_length": most})
    return recipe.model_copy(update={"text": text})


def expect_bounding(recipe: OnlineRecipe) -> None:
    """Raise `RecipeError` where `max_episode_tokens` bounds nothing, because an episode is cut
    before it has so many."""
    world = recipe.rollout.environment
    wanted = None if world is None else world.max_episode_tokens
    if wanted is not None and wanted >= recipe.text.max_length:
        raise RecipeError(
            f"rollout.environment.max_episode_tokens {wanted} bounds nothing: an episode and its "
            f"prompt have at most {recipe.text.max_length} tokens (text.max_length, or the "
            "model's positions)",
            fix="lower it, or leave it out",
        )


def report_positions(given: Recipe, prepared: Prepared) -> None:
    """Note the bound in the checks; warn if the recipe set another one or records were lost to
    it."""
    most, checks = prepared.recipe.text.max_length, prepared.checks
    checks["max_length"] = most
    lost = sum(count for name, count in checks.items() if name.endswith(("dropped", "cut")))
    if lost or "max_length" in given.text.model_fields_set:
        warnings.warn(
            f"the model has {most} positions, so text.max_length is {most}, not "
            f"{given.text.max_length}: {lost} records are dropped or cut",
            stacklevel=3,
        )
