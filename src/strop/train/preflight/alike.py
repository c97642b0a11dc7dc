"""Refuses a run whose processes do not fit together, before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers

import strop
from strop.distributed.world import World
from strop.errors import RecipeError, UsageError
from strop.model.load import pick_device
from strop.recipe.loading.load import flat
from strop.recipe.train.engine import LocalEngineRecipe
from strop.recipe.train.methods import Recipe
from strop.recipe.train.online import OnlineRecipe

HOW = "start it with `strop train RECIPE --nproc N`, or with torchrun"


def expect_world(recipe: Recipe, world: World) -> None:
    """Raise `RecipeError` for a recipe that this number of processes cannot run."""
    distributed = recipe.run.distributed
    if world.size == 1:
        if distributed.shard != "none":
            raise RecipeError(
                f"run.distributed.shard {distributed.shard} cuts the model over several processes, "
                "and this is one",
                fix=f"{HOW}, or set run.distributed.shard to none",
            )
        return
    if distributed.replicas is not None and world.size % distributed.replicas:
        raise RecipeError(
            f"{world.size} processes are not {distributed.replicas} equal groups",
            fix="make the number of processes a multiple of run.distributed.replicas",
        )
    if distributed.replicas == world.size:
        raise RecipeError(
            f"run.distributed.replicas {distributed.replicas} with as many processes leaves "
            "nothing to cut: each would hold all weights",
            fix="start more processes, lower replicas, or set run.distributed.shard to none",
        )
    if distributed.cpu_offload and pick_device(recipe.model.device) == "cpu":
        raise RecipeError(
            "run.distributed.cpu_offload moves weights into host memory, and on a CPU they are "
            "there already",
            fix="leave cpu_offload out, or set model.device to cuda",
        )
    if isinstance(recipe, OnlineRecipe) and distributed.shard != "none":
        engine = recipe.rollout.engine
        if not isinstance(engine, LocalEngineRecipe) and engine.sync == "ipc":
            raise RecipeError(
                "rollout.engine.sync ipc lets servers read the trainer's own weights, and "
                f"run.distributed.shard {distributed.shard} leaves no process all of them",
                fix="set sync to broadcast or disk, or run.distributed.shard to none",
            )


def expect_alike(recipe: Recipe, inputs: Mapping[str, Any], world: World) -> None:
    """Raise `UsageError` where processes have other recipes, files or library versions."""
    own = {
        **{f"recipe {key}": value for key, value in flat(recipe.plain()).items()},
        **{f"files {name}": entry for name, entry in inputs.items()},
        "version strop": strop.__version__,
        "version torch": torch.__version__,
        "version transformers": transformers.__version__,
    }
    first, *others = world.exchanged(own)
    for rank, other in enumerate(others, 1):
        differ = [name for name in first | other if first.get(name) != other.get(name)]
        if differ:
            name = differ[0]
            more = f" (and {len(differ) - 1} more)" if differ[1:] else ""
            raise UsageError(
                f"process {rank} has other {name}{more}: {other.get(name)}, and process 0 has "
                f"{first.get(name)}",
                fix="give all processes the same recipe, files and installed versions",
            )
