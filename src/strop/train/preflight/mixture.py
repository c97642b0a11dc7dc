"""The order of a run's records: the data mixture of a step, and how many steps there are."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from strop.data.order import DataMixture, Part
from strop.recipe.train.methods import Recipe
from strop.recipe.train.run import TrainRecipe
from strop.train.preflight.refuse import refuse_small_steps
from strop.train.preflight.sources import Roles


def mixture_of(
    recipe: Recipe, sources: Roles, own: Sequence[int], replay: Sequence[int]
) -> DataMixture:
    weights = {source.name: source.weight for source in recipe.data}
    if recipe.data[0].weight is None:
        parts = [Part(False, 0, sum(own), 1.0)]
    else:
        named = [(source.name, False, size) for source, size in zip(sources.own, own, strict=True)]
        named += [
            (source.name, True, size)
            for (source, _), size in zip(sources.replay, replay, strict=True)
        ]
        first = {False: 0, True: 0}
        parts = []
        for path, replayed, size in named:
            parts.append(Part(replayed, first[replayed], size, weights[path] or 0.0))
            first[replayed] += size
    mixture = _within_an_epoch(
        recipe, DataMixture(parts, recipe.run.batch_size, recipe.seed), sum(own)
    )
    refuse_small_steps(recipe, mixture.own)
    return mixture


def _within_an_epoch(recipe: Recipe, mixture: DataMixture, own: int) -> DataMixture:
    """For a run in epochs: if there are fewer records than a step takes, a step takes each of them
    once, because a step of several epochs would exceed what was asked for. Weights in `data`
    stay."""
    if recipe.run.epochs is None or len(mixture.parts) > 1 or mixture.own <= own:
        return mixture
    warnings.warn(
        f"run.batch_size is {mixture.own}, but there are {own} records: a step takes each of them "
        "once",
        stacklevel=2,
    )
    return DataMixture(mixture.parts, own, recipe.seed)


def total_steps(recipe: TrainRecipe, mixture: DataMixture) -> int:
    """Steps of the whole run; an epoch visits as many of the method's own records as there are."""
    if recipe.run.steps is not None:
        return recipe.run.steps
    assert recipe.run.epochs is not None
    total = max(1, round(recipe.run.epochs * mixture.epoch_steps()))
    if total == 1:
        warnings.warn(
            f"the whole run is one step of {mixture.own} records "
            f"(run.epochs {recipe.run.epochs:g}), one update at the highest learning rate: give "
            "more data or epochs, or lower run.batch_size",
            stacklevel=2,
        )
    return total
