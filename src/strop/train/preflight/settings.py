"""The final settings of a run, and where each of them comes from."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from strop.losses.presets import PRESETS
from strop.recipe.loading.load import Loc, Source, flat
from strop.recipe.train.methods import Recipe
from strop.recipe.train.online import OnlineRecipe, PolicyRecipe
from strop.recipe.train.policy import OnlineObjective
from strop.recipe.train.rollout import RolloutRecipe
from strop.train.preflight.prepared import Prepared

SHORT = ("path", "action", "function")
"""Keys that a plain value stands for: `model: folder` is `model: {path: folder}`."""


@dataclass(frozen=True, slots=True)
class Setting:
    """`Setting("rollout.resample", 9, "the preset dapo")`."""

    key: str
    value: Any
    source: str


def settings(
    recipe: Recipe, source: Source, overrides: Sequence[str], prepared: Prepared
) -> list[Setting]:
    """Every key of the recipe with the value that the run uses and its source: a line of the file,
    `--set`, the method's paper (`the preset ...`), the model, the data, or a default.

    A key without a value (`dev: null`) is left out.
    """
    given = {override.partition("=")[0] for override in overrides}
    bound = _bounds(recipe, prepared)
    papers = _of_the_preset(recipe)
    found = []
    for loc, value in _leaves(recipe.plain(), ()):
        key = ".".join(map(str, loc))
        place = _place(source, loc)
        if key in bound:
            value, said = bound[key]
        elif any(key == name or key.startswith(f"{name}.") for name in given) and place:
            said = "--set"
        elif place:
            said = place
        elif key in papers:
            value, said = papers[key], f"the preset {recipe.method}"
        else:
            said = "default"
        if value is not None:
            found.append(Setting(key, value, said))
    return found


def _bounds(recipe: Recipe, prepared: Prepared) -> dict[str, tuple[Any, str]]:
    """Values that model or data impose in place of the recipe's."""
    found: dict[str, tuple[Any, str]] = {}
    if prepared.recipe.text.max_length != recipe.text.max_length:
        found["text.max_length"] = prepared.recipe.text.max_length, "the model's positions"
    if sum(prepared.mixture.counts) != recipe.run.batch_size:
        found["run.batch_size"] = sum(prepared.mixture.counts), "the number of records"
    return found


def _of_the_preset(recipe: Recipe) -> dict[str, Any]:
    """Defaults that come from the method's own recipe classes and its loss."""
    if not isinstance(recipe, OnlineRecipe):
        return {}
    rollout = _overridden(type(recipe.rollout), RolloutRecipe)
    found = {f"rollout.{name}": getattr(recipe.rollout, name) for name in rollout}
    if not isinstance(recipe, PolicyRecipe):
        return found
    objective = _overridden(type(recipe.objective), OnlineObjective)
    found |= {f"objective.{name}": getattr(recipe.objective, name) for name in objective}
    parameters = inspect.signature(PRESETS[recipe.method]).parameters.items()
    loss = {f"objective.{name}": p.default for name, p in parameters if p.default is not p.empty}
    return found | loss


def _overridden(cls: type[BaseModel], base: type[BaseModel]) -> list[str]:
    """Fields of `base` that `cls` gives another default."""
    before, after = base.model_fields, cls.model_fields
    return [
        name
        for name, field in before.items()
        if (field.default, field.default_factory)
        != (after[name].default, after[name].default_factory)
    ]


def _leaves(value: Any, loc: Loc) -> Iterator[tuple[Loc, Any]]:
    """Plain values by their place; an alarm is one of them, and so is a list of plain values."""
    if isinstance(value, dict) and not (len(loc) == 2 and loc[0] == "alarms"):
        for name, item in value.items():
            yield from _leaves(item, (*loc, name))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for number, item in enumerate(value):
            yield from _leaves(item, (*loc, number))
    else:
        yield loc, value


def _place(source: Source, loc: Loc) -> str | None:
    """Where the file or an override sets this key; `None` if neither does."""
    here: Any = source.values
    for number, part in enumerate(loc):
        listed = isinstance(here, list)
        if part == 0 and not listed:
            continue  # `data: a.jsonl` is a list of one
        if part in (range(len(here)) if listed else here if isinstance(here, dict) else ()):
            here = here[part]
            continue
        plain = not listed and not isinstance(here, dict)
        return source.place(loc[:number]) if plain and part in SHORT else None
    return source.place(loc)


def line(setting: Setting, wide: int) -> str:
    """`rollout.resample   9   the preset dapo`."""
    value = setting.value
    if isinstance(value, dict):
        value = ", ".join(f"{name} {item}" for name, item in flat(value).items())
    return f"  {setting.key:<{wide}} {value!s:<12}  {setting.source}"
