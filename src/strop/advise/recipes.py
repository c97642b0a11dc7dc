"""A ready recipe for a verdict, from the starting points."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from strop.advise.facts import Facts
from strop.advise.known.data import KnownData
from strop.recipe.train.methods import METHODS

Recipe = dict[str, Any]

TRAINS = {
    "cold_start": "sft", "grpo_then_dpo": "grpo",
    **{name: name for name in ("cpt", "sft", "dpo", "cdpo", "robust_dpo", "ipo", "simpo", "orpo",
                               "kto", "reward_model", "grpo", "on_policy_distil")},
}  # fmt: skip
"""The starting point of each verdict that trains."""
MODEL, TEACHER = "MODEL", "TEACHER"
"""Stand for the models where none was named."""
RARE = 0.2
"""Sampled accuracy below which a sixth of the groups of 8 hold no right answer: 0.8^8 = 0.17."""
CHECKABLE = "checkable.jsonl"
"""The tasks that a reward can check, where others are among them; written with the recipe."""


@cache
def starting_points() -> Mapping[str, Any]:
    """The tables of `advise/files/starting_points.toml`, by method."""
    text = files("strop.advise").joinpath("files/starting_points.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def learning_rate(point: str, parameters: int | None, adapter: bool) -> float:
    """Where to start: `learning_rate("dpo", 8_000_000_000, adapter=True) == 5e-6`."""
    points = starting_points()
    size = 0 if (parameters or 0) < 1e9 else 1 if (parameters or 0) < 20e9 else 2
    rate: float = points[point]["learning_rate"][size]
    return float(f"{rate * (points['defaults']['adapter_factor'] if adapter else 1.0):.3g}")


def wants_adapter(parameters: int | None) -> bool:
    """Whether a model is so large that an adapter is proposed."""
    least: int = starting_points()["defaults"]["adapter_from"]
    return (parameters or 0) >= least


def ready_recipe(
    verdict: str,
    facts: Facts,
    data: KnownData,
    model: Path | None,
    adapter: bool | None = None,
    teacher: Path | None = None,
) -> Recipe | None:
    """The recipe of a verdict that trains; `None` for the others, and where the data lacks the
    records that the method reads. Paths are absolute, so that it can be saved anywhere."""
    if verdict not in TRAINS:
        return None
    point = _point(verdict, facts)
    known = starting_points()[point]
    method = known.get("method", point)
    named = data.files.get(METHODS[method].records, ())
    if not named:
        return None
    adapter = wants_adapter(facts.parameters) if adapter is None else adapter
    kind = known["kind"]
    recipe: Recipe = {
        "method": method,
        "output": str(Path.cwd() / "runs" / verdict),
        "model": {"path": MODEL if model is None else str(model.resolve())},
        "data": [str(Path(path).resolve()) for path in named],
    }
    if kind == "policy" and (facts.verifiable or 0.0) < 1.0:
        recipe["data"] = [str(Path.cwd() / CHECKABLE)]
    if adapter:
        rank = starting_points()["defaults"]["adapter_rank"][kind]
        recipe["model"]["lora"] = {"rank": rank, "alpha": 2.0 * rank}
    if objective := _objective(point, known, facts):
        recipe["objective"] = objective
    if kind == "teacher":
        recipe["teacher"] = TEACHER if teacher is None else str(teacher.resolve())
    if "rollout" in known:
        recipe["rollout"] = dict(known["rollout"])
    if kind == "policy":
        recipe["reward"] = [{"function": data.reward}]
    recipe["optim"] = {"learning_rate": learning_rate(point, facts.parameters, adapter)}
    length = {name: known[name] for name in ("epochs", "steps") if name in known}
    recipe["run"] = {**length, "batch_size": _batch(known["batch_size"], facts)}
    return recipe


def _point(verdict: str, facts: Facts) -> str:
    """Where right samples are rare, groups are larger and drawn again (DAPO)."""
    point = TRAINS[verdict]
    rare = facts.samples_right_answers is False or (facts.pass_1 or 1.0) < RARE
    return "dapo" if point == "grpo" and rare else point


def _objective(point: str, known: Mapping[str, Any], facts: Facts) -> Recipe:
    objective = dict(known.get("objective", {}))
    if point in ("cdpo", "robust_dpo") and facts.noise:
        objective["label_smoothing"] = round(min(0.45, facts.noise), 3)
    if point == "kto" and facts.liked is not None:
        objective |= _weights(facts.liked)
    return objective


def _weights(liked: float) -> Recipe:
    """Weights so that both labels count alike (Ethayarajh et al. 2024, equation 9); none where they
    nearly do."""
    odds = liked / (1 - liked)
    if 0.75 <= odds <= 4 / 3:
        return {}
    return (
        {"undesirable_weight": round(odds, 3)} if odds > 1
        else {"desirable_weight": round(1 / odds, 3)}
    )  # fmt: skip


def _batch(usual: int, facts: Facts) -> int:
    """Small data gives at least about ten steps an epoch."""
    rows = max(facts.prompts or 0, 1)
    while usual > 8 and rows < 10 * usual:
        usual //= 2
    return usual
