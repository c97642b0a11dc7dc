"""The demo world is what it says; the whole demo over three seeds is the slow evidence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from strop.demo.model import raw_model, train_tokenizer
from strop.demo.world import FILLER, Equation, all_equations, demonstrations, solution, split
from strop.demo.write import write_demo
from strop.errors import OutputError
from strop.recipe.loading.load import load, load_recipe
from strop.recipe.pipeline import Pipeline, TrainStage
from strop.rewards.exact import exact_answer
from strop.train.preflight.prepare import prepare

MINUS = Equation(3, -7, 5)


def test_a_solution_by_hand() -> None:
    assert MINUS.question == "Solve 3x - 7 = 8"
    assert solution(MINUS) == "3x = 8 + 7 = 15\nx = 15 / 3 = 5\n<answer>5</answer>"
    slip = "3x = 8 - 7 = 1\nx = 1 / 3 = 1/3\n<answer>1/3</answer>"
    assert solution(MINUS, slip=True) == slip
    assert solution(MINUS, filler=True) == FILLER + solution(MINUS)


def test_every_right_solution_is_right_and_every_slip_wrong() -> None:
    equations = all_equations()
    gold = [str(equation.x) for equation in equations]
    prompts = [equation.question for equation in equations]
    right = exact_answer(prompts, [solution(e) for e in equations], answer=gold)
    wrong = exact_answer(prompts, [solution(e, slip=True) for e in equations], answer=gold)
    assert set(right) == {1.0}
    assert set(wrong) == {0.0}


def test_held_out_equations_are_never_trained_on() -> None:
    training, held_out = split(seed=3, held_out=400)
    assert len(held_out) == 400
    assert not set(training) & set(held_out)
    assert set(training) | set(held_out) == set(all_equations())
    assert split(3, 400) == (training, held_out)
    assert split(4, 400) != (training, held_out)


def test_demonstrators_slip_and_chatter_at_their_rates() -> None:
    equations = [e for e in all_equations() if e.b < 0]
    texts = [r["completion"][0]["content"] for r in demonstrations(equations, 0, 4000)]
    filler = sum(text.startswith(FILLER) for text in texts) / 4000
    right = exact_answer(
        [""] * 4000, texts, answer=[equations[i % len(equations)].x for i in range(4000)]
    )
    slips = 1 - sum(score or 0 for score in right) / 4000
    assert filler == pytest.approx(0.5, abs=0.03)
    assert slips == pytest.approx(0.65, abs=0.03)


def test_digits_are_single_tokens_and_text_survives() -> None:
    texts = [solution(e, filler=True) for e in all_equations()[::50]]
    tokenizer = train_tokenizer(texts)
    for text in texts[:5]:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert sum(tokenizer.decode([i]).isdigit() for i in ids) == sum(map(str.isdigit, text))
    assert 4e5 < sum(p.numel() for p in raw_model(tokenizer, 0).parameters()) < 1e6


def test_the_files_are_a_pipeline_whose_recipes_hold(tmp_path: Path) -> None:
    pipeline = load(Pipeline, write_demo(tmp_path / "demo", seed=5))
    recipes = [s.recipe for s in pipeline.stages if isinstance(s, TrainStage)]
    assert [Path(recipe).stem for recipe in recipes] == ["sft", "careless", "dpo", "hacked", "grpo"]
    assert {load_recipe(recipe).seed for recipe in recipes} == {5}
    prepared = prepare(load_recipe(recipes[0]), resume=False, overwrite=False, force=False)
    assert prepared.checks["dropped"] == 0
    assert prepared.checks["ends_in_eos"] == 1.0


def test_an_existing_demo_is_left_as_it_is(tmp_path: Path) -> None:
    pipeline = write_demo(tmp_path / "demo", seed=5)
    pipeline.write_text(pipeline.read_text() + "# mine\n")
    assert write_demo(tmp_path / "demo", seed=5).read_text().endswith("# mine\n")
    with pytest.raises(OutputError, match="another seed"):
        write_demo(tmp_path / "demo", seed=6)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").write_text("cat")
    with pytest.raises(OutputError, match="not a demo"):
        write_demo(tmp_path / "photos", seed=5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_whole_demo(seed: int, tmp_path: Path) -> None:
    """What each stage buys, on 400 held-out equations."""
    out = tmp_path / "demo"
    command = [sys.executable, "-m", "strop", "demo", "--json", "--seed", str(seed)]
    done = subprocess.run(
        [*command, "--out", str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    stages = {stage["name"]: stage for stage in result["stages"]}
    sft, dpo, grpo = stages["sft"], stages["dpo"], stages["grpo"]
    assert 0.40 <= sft["accuracy"] <= 0.75
    assert sft["filler"] >= 0.4
    assert dpo["filler"] <= 0.05
    assert dpo["accuracy"] >= sft["accuracy"] - 0.03
    assert grpo["accuracy"] >= 0.97
    assert grpo["accuracy_t1"] >= 0.94
    assert grpo["filler"] <= 0.05
    assert result["gate"] == "pass"
    assert result["refused"] == [
        {"name": "careless", "verdict": "regressed"},
        {"name": "hacked", "verdict": "regressed"},
    ]
    report = Path(result["report"]).read_text()
    assert "plotly" in report
    assert "Likelihood" in report or "likelihood" in report
