"""Sweeps: runs halve, a stop is gone on from, and chance is not called better."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from strop.cli.app import app
from strop.errors import RecipeError, StropError
from strop.files import write_rows
from strop.pipeline import Observer
from strop.pipeline.sweep.result import Row, decide
from strop.pipeline.sweep.run import own_setting, run_sweep
from strop.pipeline.sweep.rungs import Setting, settings_of, survivors
from strop.recipe.loading.load import load
from strop.recipe.sweep import SweepRecipe
from tests.support.pipelines import write_twice

SWEEP = """
recipe: dpo.yaml
output: sweep
vary: {objective.beta: [0.1, 0.5, 2.0]}
suite: suite.yaml
target: pairs
rungs: [0.5, 1.0]
keep: 0.5
"""


@pytest.fixture
def sweep(tmp_path: Path, model_folder: Path) -> Path:
    write_twice(tmp_path, model_folder)
    recipe = (tmp_path / "dpo.yaml").read_text().replace("runs/sft/final", str(model_folder))
    (tmp_path / "dpo.yaml").write_text(recipe)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return tmp_path / "sweep.yaml"


def test_a_sweep_halves_and_goes_on_after_a_stop(sweep: Path) -> None:
    told: list[tuple[str, str]] = []
    watch = Observer(on_outcome=lambda stage, outcome, said: told.append((stage.name, outcome)))
    loaded = load(SweepRecipe, sweep, [])
    result = run_sweep(loaded, watch)
    folder = sweep.parent / "sweep"
    steps = [json.loads(line)["step"] for line in
             (folder / "rung-0/runs/beta-0.1/metrics.jsonl").read_text().splitlines()]  # fmt: skip
    assert steps == [1, 2, 3], "half of six steps"
    last = [row for row in result.rows if row.rung == 1]
    assert len(result.rows) == 3
    assert len(last) <= 3
    assert result.chosen in {row.setting for row in last}
    assert all(row.margin is not None for row in result.rows)
    assert json.loads((folder / "sweep.json").read_text())["chosen"] == result.chosen
    assert result.said in (folder / "sweep.html").read_text().replace("&#x27;", "'")
    assert all(outcome == "done" for _, outcome in told)
    told.clear()
    assert run_sweep(loaded, watch) == result
    assert told, "every stage is looked at again"
    assert all(outcome == "skipped" for _, outcome in told)


def test_another_sweep_is_not_mixed_in(sweep: Path) -> None:
    loaded = load(SweepRecipe, sweep, [])
    run_sweep(loaded, Observer())
    other = load(SweepRecipe, sweep, ["keep=1.0"])
    with pytest.raises(RecipeError, match="another sweep"):
        run_sweep(other, Observer())


def test_the_command_line(sweep: Path) -> None:
    planned = CliRunner().invoke(app, ["sweep", str(sweep), "--dry-run"])
    assert planned.output.count("would train") == 3, planned.output
    assert not (sweep.parent / "sweep").exists()
    done = CliRunner().invoke(app, ["sweep", str(sweep)])
    assert done.exit_code == 0, done.output
    assert "objective.beta=0.1" in done.output
    assert max(map(len, done.output.splitlines())) <= 100 + len(str(sweep.parent))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("vary={objective.beta: [0.1]}", "two values or more"),
        ("vary={objective.beta: [0.1, 0.1]}", "each once"),
        ("rungs=[0.5]", "end at 1.0"),
        ("rungs=[1.0, 0.5]", "rise"),
        ("vary={objective.betta: [0.1, 0.2]}", "betta"),
        ("target=pears", "pairs"),
    ],
)
def test_mistakes_are_said(sweep: Path, change: str, said: str) -> None:
    with pytest.raises(StropError, match=said):
        run_sweep(load(SweepRecipe, sweep, [change]), Observer())


def test_every_combination_once() -> None:
    grid = SweepRecipe.model_construct(vary={"a.b": [1, 2], "c": ["x", "y"]})
    assert [one.said for one in settings_of(grid)] == [
        "a.b=1 c=x", "a.b=1 c=y", "a.b=2 c=x", "a.b=2 c=y",
    ]  # fmt: skip
    assert settings_of(grid)[0].name == "b-1_c-x"


def test_the_better_half_survives_with_its_ties() -> None:
    a, b, c, d = (Setting((("x", n),)) for n in range(4))
    assert survivors({a: 0.1, b: 0.4, c: 0.3, d: 0.2}, 0.5) == [b, c]
    assert survivors({a: 0.4, b: 0.4, c: 0.4, d: 0.2}, 0.5) == [a, b, c]
    assert survivors({a: 0.4, b: 0.1}, 0.1) == [a]


def folder_of(path: Path, scores: list[float]) -> Path:
    path.mkdir(parents=True)
    write_rows(path / "records.jsonl", [
        {"task": "right", "item": str(n), "score": score} for n, score in enumerate(scores)
    ])  # fmt: skip
    return path


def swept(folder: Path, means: dict[str, list[float]], kl: dict[str, float], own: str) -> Any:
    evals = {name: folder_of(folder / name, scores) for name, scores in means.items()}
    rows = [Row(name, 1, sum(scores) / len(scores), {}, None, kl.get(name))
            for name, scores in means.items()]  # fmt: skip
    return decide("right", rows, evals, own)


def test_what_is_surely_worse_is_called_worse(tmp_path: Path) -> None:
    good, bad = [1.0] * 90 + [0.0] * 10, [1.0] * 50 + [0.0] * 50
    result = swept(tmp_path, {"good": good, "bad": bad}, {}, own="bad")
    assert result.chosen == "good"
    assert [row.worse for row in result.rows] == [None, True]


def test_chance_is_not_called_better(tmp_path: Path) -> None:
    one = [1.0] * 52 + [0.0] * 48
    other = [0.0] * 10 + [1.0] * 50 + [0.0] * 40
    result = swept(tmp_path, {"one": one, "other": other}, {}, own="other")
    assert result.chosen == "other", "the recipe's own value stays where nothing is sure"
    assert "does not tell" in result.said


def test_of_equals_the_nearest_to_the_start_is_taken(tmp_path: Path) -> None:
    one = [1.0] * 52 + [0.0] * 48
    other = [0.0] * 2 + [1.0] * 50 + [0.0] * 48
    result = swept(tmp_path, {"one": one, "other": other}, {"one": 0.4, "other": 0.1}, own="none")
    assert result.chosen == "other"


def test_equal_values_are_called_worse_in_at_most_one_of_twenty_sweeps(tmp_path: Path) -> None:
    """Five values that are all equal in truth; the best is picked after the fact."""
    draw, wrong = random.Random(0), 0
    for n in range(200):
        means = {str(v): [float(draw.random() < 0.6) for _ in range(80)] for v in range(5)}
        wrong += any(row.worse for row in swept(tmp_path / str(n), means, {}, "0").rows)
    assert wrong / 200 <= 0.09, "5 % and three standard errors; picking the best adds to it"


def test_the_own_setting_is_found(sweep: Path) -> None:
    assert own_setting(load(SweepRecipe, sweep, [])) == "objective.beta=0.1"
    assert own_setting(load(SweepRecipe, sweep, ["vary={objective.beta: [0.2, 0.3]}"])) is None
