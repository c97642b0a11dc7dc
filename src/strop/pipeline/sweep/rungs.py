"""The runs of a sweep: what each rung trains and measures, as a pipeline that can be resumed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from strop.errors import RecipeError
from strop.files import write_whole
from strop.recipe.loading.load import load, load_recipe
from strop.recipe.pipeline import Pipeline
from strop.recipe.suite import Suite
from strop.recipe.sweep import SweepRecipe, Value
from strop.recipe.train.methods import Recipe
from strop.train.pin import pinned


@dataclass(frozen=True, slots=True)
class Setting:
    """One combination of values: `Setting((("objective.beta", 0.1),))`."""

    values: tuple[tuple[str, Value], ...]

    @property
    def name(self) -> str:
        """`"beta-0.1"`, the name of its folders."""
        return "_".join(f"{key.rpartition('.')[2]}-{value}" for key, value in self.values)

    @property
    def said(self) -> str:
        """`"objective.beta=0.1"`."""
        return " ".join(self.overrides)

    @property
    def overrides(self) -> list[str]:
        return [f"{key}={value}" for key, value in self.values]


def settings_of(sweep: SweepRecipe) -> list[Setting]:
    """Every combination, in the order of the file."""
    keys = list(sweep.vary)
    return [
        Setting(tuple(zip(keys, values, strict=True)))
        for values in itertools.product(*sweep.vary.values())
    ]


def checked(sweep: SweepRecipe) -> dict[Setting, Recipe]:
    """The recipe of every setting; raises `RecipeError` for a value that the recipe refuses, and
    for a suite that is none."""
    load(Suite, Path(sweep.suite))
    return {
        setting: pinned(load_recipe(Path(sweep.recipe), setting.overrides), force=True)
        for setting in settings_of(sweep)
    }


def run_folder(sweep: SweepRecipe, rung: int, setting: Setting) -> Path:
    return Path(sweep.output) / f"rung-{rung}" / "runs" / setting.name


def eval_folder(sweep: SweepRecipe, rung: int, setting: Setting) -> Path:
    return Path(sweep.output) / f"rung-{rung}" / "evals" / setting.name


def rung_pipeline(
    sweep: SweepRecipe, rung: int, settings: Sequence[Setting], recipes: dict[Setting, Recipe]
) -> Pipeline:
    """Train and measure these settings at one rung's length. Its recipes and `pipeline.yaml` are
    files that can be read and run by hand."""
    folder = Path(sweep.output) / f"rung-{rung}"
    folder.mkdir(exist_ok=True)
    stages: list[dict[str, Any]] = []
    for setting in settings:
        recipe = recipes[setting]
        path = folder / f"{setting.name}.yaml"
        output = run_folder(sweep, rung, setting)
        said = recipe.plain() | {
            "output": str(output), "run": _length(recipe, sweep.rungs[rung])
        }  # fmt: skip
        write_whole(path, yaml.safe_dump(said, sort_keys=False))
        stages.append({"kind": "train", "name": f"train-{setting.name}", "recipe": str(path)})
        stages.append({
            "kind": "eval", "name": f"eval-{setting.name}", "suite": sweep.suite,
            "model": str(output / "final"), "output": str(eval_folder(sweep, rung, setting)),
            "reference": sweep.reference or recipe.model.path,
        })  # fmt: skip
    path = folder / "pipeline.yaml"
    said = {"name": f"rung-{rung}", "registry": str(folder / "registry.db"), "stages": stages}
    write_whole(path, yaml.safe_dump(said, sort_keys=False))
    return load(Pipeline, path, [])


def _length(recipe: Recipe, share: float) -> dict[str, Any]:
    """The run's length times a share of it; at least one step."""
    run: dict[str, Any] = recipe.run.plain()
    if recipe.run.steps is not None:
        return run | {"steps": max(1, math.ceil(share * recipe.run.steps))}
    return run | {"epochs": share * (recipe.run.epochs or 0.0)}


def survivors(means: dict[Setting, float], keep: float) -> list[Setting]:
    """The better part by the mean of the target, at least one, in the order they had; equal ones
    stay together."""
    count = max(1, math.ceil(keep * len(means)))
    bound = sorted(means.values(), reverse=True)[count - 1]
    return [setting for setting, mean in means.items() if mean >= bound]


def expect_new_or_same(sweep: SweepRecipe) -> None:
    """Raise `RecipeError` where the folder holds another sweep: its runs would be mixed up."""
    folder = Path(sweep.output)
    kept = folder / "sweep.yaml"
    said = yaml.safe_dump(sweep.plain(), sort_keys=False)
    if kept.exists() and kept.read_text(encoding="utf-8") != said:
        raise RecipeError("the folder holds another sweep", where=str(folder),
                          fix="choose another `output`, or delete the folder")  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(kept, said)
