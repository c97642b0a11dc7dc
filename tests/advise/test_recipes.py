"""The recipe of an advice: it passes a dry run, and its numbers are those of the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from strop.advise.facts import Facts
from strop.advise.known.data import KnownData
from strop.advise.recipes import TRAINS, learning_rate, ready_recipe, starting_points
from strop.cli.app import app
from strop.recipe.train.methods import METHODS
from tests.support.advised import question_of

BASE = {"eval": {"items": 200, "right": 100}, "target": 0.9}
TRAINED: dict[str, dict[str, Any]] = {
    "cpt": {"documents": {"rows": 60, "foreign": True}, "model": {"chat": True}},
    "sft": {"demonstrations": {"rows": 60}, "model": {"chat": True}},
    "cold_start": {"tasks": {"rows": 60}, "demonstrations": {"rows": 60}, "model": {"chat": True},
                   "eval": {"items": 200, "right": 24, "samples": 8, "lucky": 24, "hits": 1}},
    "dpo": {"pairs": {"rows": 120}, "model": {"chat": True}},
    "cdpo": {"pairs": {"rows": 120, "again": 60, "disagree": 12}, "model": {"chat": True}},
    "robust_dpo": {"pairs": {"rows": 2600, "again": 60, "disagree": 18}, "model": {"chat": True}},
    "ipo": {"pairs": {"rows": 120, "circles": 5}, "model": {"chat": True}},
    "simpo": {"pairs": {"rows": 120, "longer": 0.9}, "model": {"chat": True}},
    "orpo": {"pairs": {"rows": 120}, "model": {"chat": False}},
    "kto": {"thumbs": {"rows": 240, "liked": 0.9}, "model": {"chat": True}},
    "reward_model": {"pairs": {"rows": 10000}, "tasks": {"rows": 1000, "checkable": 0.0},
                     "model": {"chat": True}},
    "grpo": {"tasks": {"rows": 60, "checkable": 0.9}, "model": {"chat": True}},
    "grpo_then_dpo": {"tasks": {"rows": 60, "checkable": 0.5}, "model": {"chat": True}},
    "on_policy_distil": {"tasks": {"rows": 60}, "model": {"chat": True},
                         "teacher": {"chat": True, "wide": 32},
                         "taught": {"items": 200, "right": 170}},
}  # fmt: skip


@pytest.mark.parametrize("verdict", TRAINS)
def test_a_ready_recipe_passes_a_dry_run(verdict: str, tmp_path: Path) -> None:
    case = {"name": verdict, **BASE, **TRAINED[verdict]}
    question = question_of(case, tmp_path)
    arguments = ["advise", "--model", str(question.model), "--eval", str(question.eval),
                 "--target", "greedy/accuracy=0.9"]  # fmt: skip
    for path in question.data:
        arguments += ["--data", str(path)]
    if question.teacher is not None:
        arguments += ["--teacher", str(question.teacher),
                      "--teacher-eval", str(question.teacher_eval)]  # fmt: skip
    recipe = tmp_path / "recipe.yaml"
    said = CliRunner().invoke(app, [*arguments, "--recipe", str(recipe), "--json"])
    assert said.exit_code == 0, said.output
    assert json.loads(said.output)["verdict"] == verdict
    output = f"output={tmp_path / 'run'}"
    dry = CliRunner().invoke(app, ["train", str(recipe), "--dry-run", "--set", output])
    assert dry.exit_code == 0, dry.output


def test_every_point_is_of_a_method_and_says_where_it_is_from() -> None:
    for name, point in starting_points().items():
        if name == "defaults":
            continue
        assert point.get("method", name) in METHODS
        assert point["source"]
        assert sorted(point["learning_rate"], reverse=True) == point["learning_rate"]
    assert set(TRAINS.values()) <= set(starting_points())


@pytest.mark.parametrize(
    ("parameters", "adapter", "rate"),
    [(135_000_000, False, 1e-6), (8_000_000_000, False, 5e-7), (8_000_000_000, True, 5e-6),
     (70_000_000_000, True, 2e-6), (None, False, 1e-6)],
)  # fmt: skip
def test_rates_by_hand(parameters: int | None, adapter: bool, rate: float) -> None:
    assert learning_rate("dpo", parameters, adapter) == pytest.approx(rate)


def recipe(verdict: str, **facts: Any) -> dict[str, Any]:
    files: Any = {"preference": ("p.jsonl",), "feedback": ("t.jsonl",), "task": ("k.jsonl",)}
    made = ready_recipe(verdict, Facts(**facts), KnownData({}, files, "math_answer", {}), None)
    assert made is not None
    return made


def test_what_was_measured_sets_the_options() -> None:
    assert recipe("cdpo", noise=0.1234)["objective"]["label_smoothing"] == 0.123
    assert recipe("kto", liked=0.8)["objective"] == {"beta": 0.1, "undesirable_weight": 4.0}
    assert recipe("kto", liked=0.5)["objective"] == {"beta": 0.1}
    assert recipe("grpo", pass_1=0.02, verifiable=1.0)["method"] == "dapo"
    assert recipe("grpo", pass_1=0.2, verifiable=1.0)["reward"] == [{"function": "math_answer"}]
    assert recipe("dpo", prompts=100)["run"]["batch_size"] == 8
    assert recipe("dpo", prompts=4000)["run"]["batch_size"] == 32
    assert recipe("dpo", parameters=8_000_000_000)["model"]["lora"]["rank"] == 16
    assert "lora" not in recipe("dpo", parameters=500_000_000)["model"]


def test_no_recipe_where_nothing_is_trained_or_the_records_are_not_there() -> None:
    known = KnownData({}, {"preference": ("p.jsonl",)}, "", {})
    assert ready_recipe("collect_more", Facts(), known, None) is None
    assert ready_recipe("cold_start", Facts(), known, None) is None
