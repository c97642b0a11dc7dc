"""The keys of recipes, and those that a page of the docs explains."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

import yaml
from pydantic import BaseModel

from strop.recipe.train.methods import METHODS

SAME = {"value.lora": "model.lora", "eval.reward": "reward", "eval.data": "data"}
"""Sections that are read like another one, which is where the page explains them."""


def recipe_keys() -> set[str]:
    """Every key of every method's recipe, with dots: `optim.learning_rate`."""
    return {key for row in METHODS.values() for key in _keys_of(row.recipe, "")}


def _keys_of(section: type[BaseModel], prefix: str) -> Iterator[str]:
    for own, field in section.model_fields.items():
        name = field.alias or own
        yield prefix + name
        parts = [field.annotation]
        while parts:
            part = parts.pop()
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from _keys_of(part, f"{prefix}{name}.")
            parts += get_args(part)


def explained(page: str) -> set[str]:
    """The keys that a page explains: rows of its tables, and the recipes it shows.

    In a table a name without a dot belongs to the section of the name before it (`betas` after
    `optim.weight_decay`), unless a recipe has such a key itself (`reward`). `{rank: 16, alpha: 32}`
    in the row of `model.lora` explains `model.lora.rank` and `model.lora.alpha`.
    """
    found = {key for block in re.findall(r"```yaml\n(.*?)```", page, flags=re.S)
             for key in _flat(yaml.safe_load(block), "")}  # fmt: skip
    top = {key for key in recipe_keys() if "." not in key}
    section = ""
    for line in page.splitlines():
        if not line.startswith("|"):
            section = ""
        elif line.startswith("| alarm |"):
            section = "alarms."
        else:
            name, _, meaning = line.removeprefix("|").partition("|")
            for span in re.findall(r"`([^`]+)`", name):
                if "{" in span:
                    found |= set(_flat(yaml.safe_load(span), ""))
                    continue
                key = span if "." in span or span in top else section + span
                section = key.rpartition(".")[0] + "." if "." in key else section
                found.add(key)
                for inner in re.findall(r"`(\{[^`]+\})`", meaning):
                    found |= set(_flat(yaml.safe_load(inner), f"{key}."))
    return found


def _flat(value: Any, prefix: str) -> Iterator[str]:
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict):
            for name, inner in item.items():
                yield f"{prefix}{name}"
                yield from _flat(inner, f"{prefix}{name}.")


def unexplained(page: str) -> set[str]:
    """Keys of recipes that the page does not explain."""
    known = explained(page)
    every = {f"alarms.{name.split('.')[1]}.{option.rpartition('.')[2]}" for name in known
             if name.startswith("alarms.") for option in known
             if option.startswith("alarms.<name>.")}  # fmt: skip
    known |= every
    known |= {key.rpartition(".")[0] for key in known}
    missing = set()
    for key in recipe_keys():
        homes = [other + key.removeprefix(section) for section, other in SAME.items()
                 if key.startswith(f"{section}.")]  # fmt: skip
        if not known & {key, *homes}:
            missing.add(key)
    return missing
