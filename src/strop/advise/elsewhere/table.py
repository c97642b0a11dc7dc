"""The systems that a recipe can go to, and those that one can come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.advise.elsewhere import axolotl, llamafactory, openrlhf, trl, unsloth, verl
from strop.advise.elsewhere.back import axolotl as from_axolotl
from strop.advise.elsewhere.back import llamafactory as from_llamafactory
from strop.advise.elsewhere.back import trl as from_trl
from strop.advise.elsewhere.carried import Export, Import, Keys
from strop.advise.elsewhere.names import ORIGINS, TARGETS, Origin, Target
from strop.advise.elsewhere.parts import taught
from strop.errors import RecipeError, UsageError
from strop.recipe.loading.load import load_recipe, read_yaml
from strop.recipe.train.methods import METHODS, Recipe


@dataclass(frozen=True, slots=True)
class System:
    """`System("TRL", trl.export, frozenset({"sft", "dpo"}))`; `unfit` says why a recipe of a known
    method has no counterpart, and nothing where it has one."""

    name: str
    export: Callable[[Keys], Export]
    methods: frozenset[str]
    unfit: Callable[[Keys], str] = lambda keys: ""


EXPORTERS: Mapping[Target, System] = {
    "trl": System(trl.NAME, trl.export, frozenset(trl.FAMILY), taught.unfit),
    "axolotl": System(axolotl.NAME, axolotl.export, frozenset(axolotl.FAMILY)),
    "llamafactory": System(llamafactory.NAME, llamafactory.export, frozenset(llamafactory.STAGE),
                           llamafactory.unfit),
    "verl": System(verl.NAME, verl.export, frozenset(verl.HAS)),
    "openrlhf": System(openrlhf.NAME, openrlhf.export, frozenset(openrlhf.MODULE)),
    "unsloth": System(unsloth.NAME, unsloth.export, frozenset(unsloth.FAMILY)),
}  # fmt: skip

IMPORTERS: Mapping[Origin, Callable[[Mapping[str, Any], Path], Import]] = {
    "trl": from_trl.recipe_of,
    "axolotl": from_axolotl.recipe_of,
    "llamafactory": from_llamafactory.recipe_of,
}


def system_of(target: str) -> System:
    """Raises `UsageError` for a name that is none of a system."""
    for name, system in EXPORTERS.items():
        if name == target:
            return system
    raise UsageError(f"unknown system {target!r}", fix=f"use one of {', '.join(TARGETS)}")


def export(recipe: Recipe, target: str) -> Export:
    """A run in the form of another system.

    Raises `UsageError` for an unknown system, and for a method that this one does not have.
    """
    system = system_of(target)
    if recipe.method not in system.methods:
        having = [name for name, other in EXPORTERS.items() if recipe.method in other.methods]
        raise UsageError(
            f"{system.name} has no method {recipe.method}",
            fix=f"export to {', '.join(having)}"
            if having
            else f"train it with strop: none of {', '.join(EXPORTERS)} has it",
        )
    keys = Keys(recipe, system.name)
    unfit = system.unfit(keys)
    if unfit:
        raise UsageError(unfit, fix="export to another system, or change the recipe")
    return system.export(keys)


def import_recipe(file: Path, source: str) -> Import:
    """A config of another system as a recipe that strop's own loader reads.

    Raises `UsageError` for an unknown system, and for a config of a run that strop does not have.
    """
    importer = next((read for name, read in IMPORTERS.items() if name == source), None)
    if importer is None:
        raise UsageError(f"recipes cannot be read from {source!r}",
                         fix=f"use one of {', '.join(ORIGINS)}")  # fmt: skip
    made = importer(read_yaml(file).values, file.resolve().parent)
    if made.recipe.get("method") not in METHODS:
        raise RecipeError(
            f"no method of strop is meant: {made.recipe.get('method')}",
            where=str(file),
            fix=f"strop has {', '.join(METHODS)}",
        )
    load_recipe(made.recipe)
    return made
