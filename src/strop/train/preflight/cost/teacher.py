"""What a teacher in this process takes: its weights, and a forward over what a step learns from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.model.load import load_config
from strop.recipe.train.distillation import DistilRecipe
from strop.recipe.train.methods import Recipe
from strop.recipe.train.teacher import ModelTeacher, OwnTeacher
from strop.train.preflight.cost.shape import Shape, shape_of
from strop.train.teachers.build import is_the_start, shares_base

WIDTHS = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0}
NF4 = 0.52
"""Bytes of a weight in 4 bits, with its scales."""


@dataclass(frozen=True, slots=True)
class Teacher:
    """`Teacher(parameters=8_000_000_000, held=16_000_000_000, once=False)`: bytes that it holds (0
    where it is the student itself, an adapter's where it shares the base), and whether it reads all
    records once, before step 1."""

    parameters: int
    held: int
    once: bool


def teacher_of(recipe: Recipe, shape: Shape) -> Teacher | None:
    """The teacher of a recipe that reads in this process; `shape` is that of the student."""
    named = recipe.taught_by
    if not isinstance(named, ModelTeacher | OwnTeacher):
        return None
    once = isinstance(recipe, DistilRecipe) and recipe.objective.top_k is not None
    if isinstance(named, OwnTeacher) or is_the_start(named, recipe):
        start = named.path if isinstance(named, ModelTeacher) else named.own
        copied = recipe.model.lora is None and start != "current"
        return Teacher(shape.parameters, 4 * shape.parameters * copied, once)
    if named.is_served:
        return None
    config = load_config(named.path, named.trust_remote_code)
    parameters = shape_of(config).parameters
    if shares_base(named, recipe, recipe.model.path):
        files = Path(named.path).glob("adapter_model.safetensors")
        return Teacher(parameters, sum(file.stat().st_size for file in files), once)
    return Teacher(parameters, round(parameters * _width(named, config)), once)


def _width(named: ModelTeacher, config: Any) -> float:
    """Bytes of a weight as it is stored."""
    if named.quantize is not None:
        return NF4
    own = str(named.dtype or config.dtype).removeprefix("torch.")
    return WIDTHS.get(own, 4.0)
