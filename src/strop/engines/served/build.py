"""The engine that a recipe names, where it is in other processes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from strop.distributed.world import World
from strop.engines.canary import Canary, canary_tree
from strop.engines.engine import PromptedTask
from strop.engines.served.engine import ServedEngine
from strop.engines.served.kinds import servers_of
from strop.engines.served.server import About
from strop.engines.served.shared import SharedEngine
from strop.engines.served.sync import SYNCS
from strop.model.network import Policy
from strop.recipe.train.engine import ServedRecipe


def shared_engine(
    recipe: ServedRecipe,
    policy: Policy,
    prompts: Sequence[PromptedTask],
    leader: ServedEngine | None,
    world: World,
) -> SharedEngine:
    """The servers of a recipe as all processes of a run ask them; `leader` is process 0's."""
    canary = Canary(policy, canary_tree(prompts), limit=recipe.limit)
    at_once = at_once_of(recipe, world.size)
    return SharedEngine(world, policy, servers_of(recipe), canary, leader=leader, at_once=at_once)


def at_once_of(recipe: ServedRecipe, processes: int) -> int:
    """Requests of one process that are on their way together: all of them send those of the
    recipe."""
    return max(1, recipe.at_once // processes)


def served_engine(
    recipe: ServedRecipe,
    about: About,
    policy: Policy,
    prompts: Sequence[PromptedTask],
    *,
    folder: Path,
    askers: int = 1,
) -> ServedEngine:
    """The servers of a recipe, which `expect_servers` looked at, as the engine of a policy.

    `folder` is the run's own for weights, where the recipe names none: what an earlier start of
    the run left there goes. `askers` processes ask the servers.
    """
    if recipe.folder is None:
        shutil.rmtree(folder, ignore_errors=True)
    canary = Canary(policy, canary_tree(prompts), limit=recipe.limit)
    way = recipe.sync or ("adapter" if policy.is_adapter else "disk")
    sync = SYNCS[way](recipe.folder or folder)
    return ServedEngine(
        policy, about, servers_of(recipe), sync, canary,
        at_once=at_once_of(recipe, askers), sleeps=recipe.sleep,
    )  # fmt: skip
