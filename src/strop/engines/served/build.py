"""The engine that a recipe names, where it is in other processes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from strop.engines.canary import Canary, canary_tree
from strop.engines.engine import PromptedTask
from strop.engines.served.engine import ServedEngine
from strop.engines.served.kinds import servers_of
from strop.engines.served.server import About
from strop.engines.served.sync import SYNCS
from strop.model.network import Policy
from strop.recipe.train.engine import ServedRecipe


def served_engine(
    recipe: ServedRecipe,
    about: About,
    policy: Policy,
    prompts: Sequence[PromptedTask],
    *,
    folder: Path,
) -> ServedEngine:
    """The servers of a recipe, which `expect_servers` looked at, as the engine of a policy.

    `folder` is the run's own for weights, where the recipe names none: what an earlier start of
    the run left there goes.
    """
    if recipe.folder is None:
        shutil.rmtree(folder, ignore_errors=True)
    canary = Canary(policy, canary_tree(prompts), limit=recipe.limit)
    way = recipe.sync or ("adapter" if policy.is_adapter else "disk")
    sync = SYNCS[way](recipe.folder or folder)
    return ServedEngine(
        policy, about, servers_of(recipe), sync, canary,
        at_once=recipe.at_once, sleeps=recipe.sleep,
    )  # fmt: skip
