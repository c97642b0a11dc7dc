"""Refuses a run whose processes do not fit together, before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers

import strop
from strop.distributed.world import World
from strop.engines.engine import Engine
from strop.errors import RecipeError, UsageError
from strop.model.load import pick_device
from strop.recipe.loading.load import flat
from strop.recipe.train.engine import LocalEngineRecipe, ServedRecipe
from strop.recipe.train.methods import Recipe
from strop.recipe.train.online import OnlineRecipe
from strop.recipe.train.run import DistributedRecipe

HOW = "start it with `strop train RECIPE --nproc N`, or with torchrun"


def expect_world(recipe: Recipe, world: World) -> None:
    """Raise `RecipeError` for a recipe that this number of processes cannot run."""
    distributed = recipe.run.distributed
    if world.size == 1:
        if distributed.tensor > 1:
            raise RecipeError(
                f"run.distributed.tensor {distributed.tensor} computes matrices in as many "
                "processes, and this is one",
                fix=f"{HOW}, or set run.distributed.tensor to 1",
            )
        if distributed.shard != "none":
            raise RecipeError(
                f"run.distributed.shard {distributed.shard} cuts the model over several processes, "
                "and this is one",
                fix=f"{HOW}, or set run.distributed.shard to none",
            )
        return
    _expect_equal_groups(distributed, world.size)
    if distributed.cpu_offload and pick_device(recipe.model.device) == "cpu":
        raise RecipeError(
            "run.distributed.cpu_offload moves weights into host memory, and on a CPU they are "
            "there already",
            fix="leave cpu_offload out, or set model.device to cuda",
        )
    engine = recipe.rollout.engine if isinstance(recipe, OnlineRecipe) else LocalEngineRecipe()
    if not isinstance(engine, LocalEngineRecipe):
        _expect_weights_for(engine, distributed)


def _expect_weights_for(engine: ServedRecipe, distributed: DistributedRecipe) -> None:
    """Raise `RecipeError` where servers cannot get weights of which each process holds a part."""
    if distributed.tensor > 1:
        raise RecipeError(
            f"rollout.engine {engine.kind} gets whole weights, and "
            f"run.distributed.tensor {distributed.tensor} leaves every process a part of them",
            fix="set rollout.engine to {kind: local}, or run.distributed.tensor to 1",
        )
    if engine.sync == "ipc" and distributed.shard != "none":
        raise RecipeError(
            "rollout.engine.sync ipc lets servers read the trainer's own weights, and "
            f"run.distributed.shard {distributed.shard} leaves no process all of them",
            fix="set sync to broadcast or disk, or run.distributed.shard to none",
        )


def expect_own_engine(recipe: Recipe, engine: Engine | None) -> None:
    """Raise `UsageError` for an engine from Python where no process has whole weights for it."""
    if engine is not None and recipe.run.distributed.tensor > 1:
        raise UsageError(
            "an engine of your own gets whole weights, and run.distributed.tensor "
            f"{recipe.run.distributed.tensor} leaves every process a part of them",
            fix="leave `engine` out, or set run.distributed.tensor to 1",
        )


def _expect_equal_groups(distributed: DistributedRecipe, processes: int) -> None:
    """Raise `RecipeError` where the processes are not shard times replicas times tensor."""
    tensor, replicas = distributed.tensor, distributed.replicas
    if processes % tensor:
        raise RecipeError(
            f"{processes} processes are not groups of run.distributed.tensor {tensor}",
            fix="make the number of processes a multiple of run.distributed.tensor",
        )
    left = processes // tensor
    them = f"{left} groups of {tensor} processes" if tensor > 1 else f"{left} processes"
    if replicas is not None and left % replicas:
        raise RecipeError(
            f"{them} are not {replicas} equal groups",
            fix="make the number of processes a multiple of run.distributed.replicas"
            + (" times run.distributed.tensor" if tensor > 1 else ""),
        )
    if distributed.shard != "none" and left == (replicas or 1):
        asked = "tensor" if replicas is None else "replicas"
        raise RecipeError(
            f"run.distributed.{asked} {replicas or tensor} with {processes} processes leaves "
            "nothing to cut by run.distributed.shard",
            fix=f"start more processes, lower {asked}, or set run.distributed.shard to none",
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
