"""Measuring a dev suite during training: exact, harmless to the run, and it chooses the best."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from strop.demo.world import all_equations, solution, user
from strop.errors import DataError, OutputError, RecipeError, RewardError, StoppedByAlarm
from strop.evals.run import run_suite
from strop.recipe.loading.load import load, load_recipe
from strop.recipe.suite import Suite
from strop.recipe.train.alarm import CommonAlarms
from strop.recipe.train.dev import DevRecipe
from strop.recipe.train.methods import Recipe
from strop.tracking.report import curves
from strop.tracking.runlog import read_rows
from strop.train.monitor import dev as dev_module
from strop.train.monitor.alarms import AlarmWatch
from strop.train.monitor.dev import Best, best_of, score_names
from strop.train.preflight.prepare import prepare
from strop.train.run import train
from tests.support.processes import Child, sets
from tests.support.runs import EQUATIONS, WriteRows, break_off, metrics, same, weights

GREEDY = {
    "kind": "generate",
    "name": "greedy",
    "data": "few.jsonl",
    "sampling": {"temperature": 1.0, "max_tokens": 8},
    "scores": [{"function": "brevity", "file": "dev_rewards.py"}],
}
PAIRS = {"kind": "preference", "name": "pairs", "data": "held.jsonl"}
OTHERS = [e for e in all_equations()[7::53] if e not in EQUATIONS]

REWARD = """
import random

import numpy
import torch


def brevity(prompts, completions, **columns):
    random.random(), numpy.random.rand(), torch.rand(1)  # whoever draws, the run must not notice
    return [1.0 / (1 + len(c[-1]["content"])) for c in completions]


def algebraic(prompts, completions, **columns):
    texts = [c[-1]["content"] or "?" for c in completions]
    return [sum(sign in "0123456789x=+-*/ \\n" for sign in text) / len(text) for text in texts]
"""

Setting = Callable[..., Recipe]


@pytest.fixture
def setting(recipes: dict[str, Path], write_rows: WriteRows, tmp_path: Path) -> Setting:
    """A recipe of a method with a dev suite of few items beside it."""
    write_rows("few.jsonl", [{"prompt": user(e)} for e in OTHERS[:6]])
    write_rows(
        "held.jsonl",
        [
            {"prompt": user(e), "chosen": solution(e), "rejected": solution(e, filler=True)}
            for e in OTHERS[6:20]
        ],
    )
    (tmp_path / "dev_rewards.py").write_text(REWARD)
    suite = {"name": "dev", "seed": 5, "tasks": [GREEDY, PAIRS]}
    (tmp_path / "dev.yaml").write_text(yaml.safe_dump(suite))

    def make(method: str, *overrides: str, **dev: Any) -> Recipe:
        asked = {"suite": str(tmp_path / "dev.yaml"), "every": 2, "metric": "pairs", **dev}
        return load_recipe(recipes[method], [f"dev={json.dumps(asked)}", *overrides])

    return make


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the measurements of a run be what a test says, one after the other."""

    def plant(**scores: list[float]) -> None:
        turns = iter(range(100))

        def measure(*_: object) -> dict[str, float]:
            turn = next(turns)
            return {name: values[turn] for name, values in scores.items()}

        monkeypatch.setattr(dev_module, "measure", measure)

    return plant


def lineage(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "lineage.json").read_text()))


class TestMeasuring:
    def test_the_run_does_not_notice(self, setting: Setting, recipes: dict[str, Path]) -> None:
        """Same bits with dropout, whose stream sampling and rewards could have moved."""
        drop = "model.lora={rank: 4, dropout: 0.1}"
        plain = train(load_recipe(recipes["sft"], [drop, "output=runs/plain"]))
        dev = train(setting("sft", drop, final="last"))
        name = "adapter_model.safetensors"
        assert same(load_file(plain / name), load_file(dev / name))
        rows = metrics(dev.parent)
        bare = [{k: v for k, v in row.items() if not k.startswith("dev/")} for row in rows]
        assert bare == [{"step": 0}, *metrics(plain.parent)]
        assert [r["step"] for r in rows if "dev/pairs" in r] == [0, 2, 4, 6]

    def test_the_numbers_are_those_of_an_eval(
        self, setting: Setting, model_folder: Path, tmp_path: Path
    ) -> None:
        recipe = setting("dpo", every=4, final="last")
        run = train(recipe).parent
        suite = load(Suite, tmp_path / "dev.yaml")
        rows = {row["step"]: row for row in metrics(run) if "dev/pairs" in row}
        assert rows.keys() == {0, 4, 6}
        for step, model in ((0, model_folder), (4, run / "checkpoint-4"), (6, run / "final")):
            scores = run_suite(suite, str(model), tmp_path / f"eval-{step}").scores
            assert {k[4:]: v for k, v in rows[step].items() if k.startswith("dev/")} == scores

    def test_a_reward_model_is_measured_on_pairs(self, setting: Setting, tmp_path: Path) -> None:
        (tmp_path / "dev.yaml").write_text(yaml.safe_dump({"name": "dev", "tasks": [PAIRS]}))
        eval_ = f"eval={{data: {tmp_path / 'held.jsonl'}, every: 3}}"
        rows = metrics(train(setting("reward_model", eval_, every=3)).parent)
        seen = [(r["dev/pairs"], r["eval_rewards/accuracies"]) for r in rows if "eval_loss" in r]
        assert len(seen) == 2
        for measured, accuracy in seen:  # the trainer's own accuracy on the same pairs
            assert measured == pytest.approx(accuracy)

    def test_it_is_in_the_report(self, setting: Setting, planted: Callable[..., None]) -> None:
        planted(pairs=[0.5, 0.6])
        run = train(setting("sft", "run.steps=2")).parent
        drawn = {curve.name: (list(curve.x), list(curve.y)) for curve in curves(metrics(run)).data}
        assert drawn["dev/pairs"] == ([0, 2], [0.5, 0.6])


class TestBest:
    def test_the_earlier_of_two_equals_and_never_step_0(self) -> None:
        best = None
        for step, score in [(0, 0.9), (2, 0.4), (4, 0.6), (6, 0.6), (8, 0.5), (10, float("nan"))]:
            best = best_of(best, {"step": step, "dev/a": score}, "a")
        assert best == Best(4, 0.6)
        assert best_of(best, {"step": 12, "loss": 0.0}, "a") == best

    def test_is_kept_named_and_published(
        self, setting: Setting, planted: Callable[..., None]
    ) -> None:
        """Kept although only the last checkpoint is asked for and none at its step."""
        planted(pairs=[0.2, 0.5, 0.9, 0.9, 0.3, 0.4])
        run = train(
            setting("sft", "run.keep_checkpoints=1", "run.save_every=0", "run.steps=10")
        ).parent
        assert sorted(p.name for p in run.glob("checkpoint-*")) == ["checkpoint-10", "checkpoint-4"]
        assert os.readlink(run / "best") == "checkpoint-4"
        assert os.readlink(run / "latest") == "checkpoint-10"
        assert same(weights(run / "final"), weights(run / "checkpoint-4"))
        assert not same(weights(run / "final"), weights(run / "checkpoint-10"))
        assert lineage(run)["final"] == {
            "step": 4, "of": 10, "by": "dev/pairs", "score": 0.9, "before": 0.2,
        }  # fmt: skip

    def test_or_the_last_if_asked(self, setting: Setting, planted: Callable[..., None]) -> None:
        planted(pairs=[0.2, 0.9, 0.3, 0.4])
        run = train(setting("sft", final="last")).parent
        assert os.readlink(run / "best") == "checkpoint-2"
        assert same(weights(run / "final"), weights(run / "checkpoint-6"))
        assert lineage(run)["final"] == {"step": 6, "of": 6, "by": "last"}

    def test_a_run_that_gained_nothing_says_so(
        self, setting: Setting, planted: Callable[..., None]
    ) -> None:
        planted(pairs=[0.7, 0.6, 0.7, 0.5])
        with pytest.warns(UserWarning, match=r"pairs was 0\.7 before step 1 and never higher"):
            run = train(setting("sft")).parent
        assert lineage(run)["final"]["step"] == 4

    def test_a_rollback_keeps_the_best_before_it(
        self, setting: Setting, planted: Callable[..., None]
    ) -> None:
        """The best of all came after the rollback's step: it goes, the best of what is left stays
        and is where the next best is measured against."""
        alarm = 'alarms={"capability_regression": {"patience": 2, "action": "rollback"}}'
        planted(
            pairs=[0.2, 0.6, 0.5, 0.7, 0.8],
            general=[0.9, 0.9, 0.9, 0.5, 0.5],
            **{"greedy/brevity": [0.0] * 5},
        )
        (Path(setting("sft").dev.suite)).write_text(  # type: ignore[union-attr]
            yaml.safe_dump({"name": "dev", "tasks": [PAIRS, {**PAIRS, "name": "general"}]})
        )
        recipe = setting("sft", alarm, "run.steps=10", "run.keep_checkpoints=4",
                         general=["general"])  # fmt: skip
        with pytest.raises(StoppedByAlarm, match="It began at step 6"):
            train(recipe)
        run = Path(recipe.output)
        assert os.readlink(run / "best") == "checkpoint-2"
        assert os.readlink(run / "latest") == "checkpoint-4"
        silent = setting("sft", 'alarms={"capability_regression": "off"}', "run.steps=10",
                         "run.keep_checkpoints=4", general=["general"])  # fmt: skip
        planted(pairs=[0.55, 0.58, 0.3], general=[0.9] * 3)
        assert lineage(train(silent, resume=True).parent)["final"]["step"] == 2


class TestResume:
    def test_interrupted_at_every_step(self, setting: Setting) -> None:
        """The same log with each measurement once, the same best, the same final weights."""
        whole = train(setting("dpo", "output=runs/whole", metric="greedy/brevity")).parent
        recipe = setting("dpo", "output=runs/parts", metric="greedy/brevity")

        for step in range(7):  # step 0 is the measurement before the first
            break_off(recipe, step, resume=step > 0)
        parts = train(recipe, resume=True).parent
        assert metrics(parts) == metrics(whole)
        assert [r["step"] for r in metrics(parts)] == [0, 1, 2, 3, 4, 5, 6]
        assert os.readlink(parts / "best") == os.readlink(whole / "best")
        assert same(weights(parts / "final"), weights(whole / "final"))
        assert lineage(parts)["final"] == lineage(whole)["final"]

    def test_killed(self, setting: Setting, recipes: dict[str, Path], tmp_path: Path) -> None:
        dev = {"suite": str(tmp_path / "dev.yaml"), "every": 2, "metric": "greedy/brevity"}
        given = sets("run.steps=12", "output=runs/killed", f"dev={json.dumps(dev)}")
        recipe = setting("sft", "run.steps=12", "output=runs/whole", metric="greedy/brevity")
        whole = train(recipe).parent
        run = whole.parent / "killed"
        child = Child(["train", recipes["sft"], *given], tmp_path / "said")
        child.until((run / "checkpoint-4").exists)
        child.kill()
        child = Child(["train", recipes["sft"], *given, "--resume"], tmp_path / "said")
        assert child.end() == 0, child.said
        assert metrics(run) == metrics(whole)
        assert lineage(run)["final"] == lineage(whole)["final"]
        assert same(weights(run / "final"), weights(whole / "final"))

    def test_another_dev_set_is_another_run(self, setting: Setting, write_rows: WriteRows) -> None:
        recipe = setting("sft", "run.steps=2")

        break_off(recipe, 0)
        write_rows("few.jsonl", [{"prompt": user(e)} for e in OTHERS[20:26]])
        with pytest.raises(OutputError, match="the run began with other dev than"):
            train(recipe, resume=True)


def rang(rows: list[dict[str, float]], dev: DevRecipe, **alarm: Any) -> list[tuple[int, str]]:
    watch = AlarmWatch(
        CommonAlarms.model_validate({"capability_regression": alarm} if alarm else {}), dev
    )
    return [(r.step, r.said) for n, row in enumerate(rows) for r in watch.see({"step": n, **row})]


def rows_of(target: list[float], **general: list[float]) -> list[dict[str, float]]:
    rows = [{"dev/t": value} for value in target]
    for name, values in general.items():
        for row, value in zip(rows, values, strict=True):
            row[f"dev/{name}"] = value
    return rows


class TestDual:
    dev = DevRecipe(suite="dev.yaml", metric="t", general=["a", "b"], tolerance=0.02)

    def test_rings_when_the_target_rises_and_a_general_score_falls(self) -> None:
        rows = rows_of([0.5, 0.6, 0.7, 0.8], a=[0.9, 0.88, 0.87, 0.8], b=[0.3, 0.3, 0.4, 0.4])
        ((step, said),) = rang(rows, self.dev)
        assert step == 3  # rows 2 and 3; a fall of exactly the tolerance is none
        assert "t 0.5 to 0.8" in said
        assert "a 0.9 to 0.8" in said
        assert "b 0.3" not in said
        for advice in ("optim.learning_rate", "`weight` in data", "stop here"):
            assert advice in said

    @pytest.mark.parametrize(
        "rows",
        [
            rows_of([0.5, 0.5, 0.4, 0.5], a=[0.9, 0.5, 0.5, 0.5], b=[0.3] * 4),  # nothing is bought
            rows_of([0.5, 0.6, 0.7, 0.8], a=[0.9, 0.89, 0.88, 0.9], b=[0.3] * 4),  # noise
            rows_of([0.5, 0.6, 0.7, 0.8], a=[0.9, 0.8, 0.9, 0.8], b=[0.3] * 4),  # not in a row
            rows_of([0.5, 0.4, 0.3, 0.2], a=[0.9, 0.95, 1.0, 1.0], b=[0.3] * 4),  # other way round
        ],
    )
    def test_is_silent_otherwise(self, rows: list[dict[str, float]]) -> None:
        assert rang(rows, self.dev) == []

    def test_counts_measurements_not_steps(self) -> None:
        measured = rows_of([0.5, 0.6, 0.7], a=[0.9, 0.8, 0.8], b=[0.3] * 3)
        rows = [row for m in measured for row in (m, {"loss": 1.0}, {"loss": 1.0})]
        assert [step for step, _ in rang(rows, self.dev)] == [6]

    def test_the_threshold_is_how_many_may_fall(self) -> None:
        one = rows_of([0.5, 0.6, 0.7], a=[0.9, 0.8, 0.8], b=[0.3, 0.3, 0.3])
        both = rows_of([0.5, 0.6, 0.7], a=[0.9, 0.8, 0.8], b=[0.3, 0.2, 0.2])
        assert rang(one, self.dev, threshold=1, patience=2) == []
        assert [step for step, _ in rang(both, self.dev, threshold=1, patience=2)] == [2]

    def test_is_silent_in_a_real_run(self, setting: Setting, tmp_path: Path) -> None:
        """SFT that learns to write equations, and prefers the shorter answer as it did."""
        path = tmp_path / "dev.yaml"
        suite = yaml.safe_load(path.read_text())
        suite["tasks"][0]["scores"] = [{"function": "algebraic", "file": "dev_rewards.py"}]
        path.write_text(yaml.safe_dump(suite))
        recipe = setting("sft", "run.steps=24", "optim.learning_rate=3e-3", every=6,
                         metric="greedy/algebraic", general=["pairs"])  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            rows = metrics(train(recipe).parent)
        assert not any("alarms" in row for row in rows)
        target = [row["dev/greedy/algebraic"] for row in rows if "dev/pairs" in row]
        assert len(target) == 5
        assert target[-1] > target[0]  # the target did rise


def test_a_suite_that_comes_with_a_forced_resume_chooses_the_final_model(
    setting: Setting, recipes: dict[str, Path]
) -> None:
    """Nothing was measured before step 1, so there is no score to compare the best one with."""
    broken = break_off(load_recipe(recipes["dpo"], ["eval=null"]), 3)
    run = train(setting("dpo", "eval=null"), force_resume=True).parent
    assert run == broken
    final = lineage(run)["final"]
    assert (final["by"], final["before"]) == ("dev/pairs", None)
    assert final["step"] in (4, 6)


class TestRefused:
    """Before a model is loaded and before anything is written."""

    def refused(self, recipe: Recipe) -> str:
        with pytest.raises((RecipeError, DataError, RewardError)) as told:
            train(recipe)
        assert not Path(recipe.output).exists()
        return str(told.value)

    def suite(self, tmp_path: Path, **changes: Any) -> None:
        suite = yaml.safe_load((tmp_path / "dev.yaml").read_text())
        (tmp_path / "dev.yaml").write_text(yaml.safe_dump({**suite, **changes}))

    def test_a_sealed_suite(self, setting: Setting, tmp_path: Path) -> None:
        self.suite(tmp_path, sealed=True)
        said = self.refused(setting("sft", "model.path=/no/such/model"))
        assert said.startswith(str(tmp_path / "dev.yaml"))
        assert "sealed" in said
        assert "keep this one for the gate" in said

    def test_scores_that_the_suite_does_not_produce(self, setting: Setting) -> None:
        said = self.refused(setting("sft", metric="greedy/accuracy"))
        assert "dev.metric names the score 'greedy/accuracy'" in said
        assert "its scores are greedy/brevity, pairs" in said
        said = self.refused(setting("sft", general=["greedy"]))
        assert "dev.general names the score 'greedy'" in said

    def test_what_a_reward_model_cannot_do(self, setting: Setting, tmp_path: Path) -> None:
        assert "a reward model writes no text" in self.refused(setting("reward_model"))
        self.suite(tmp_path, tasks=[{**PAIRS, "per_token": True}])
        assert "drop per_token" in self.refused(setting("reward_model"))

    def test_an_alarm_that_hears_nothing(self, setting: Setting) -> None:
        assert "no general score" in self.refused(
            setting("sft", "alarms={capability_regression: stop}")
        )

    def test_rewards_and_data_that_cannot_be_used(self, setting: Setting, tmp_path: Path) -> None:
        task = {**GREEDY, "scores": [{"function": "exact_answer"}]}
        self.suite(tmp_path, tasks=[task, PAIRS])
        assert "reads the column `answer`" in self.refused(setting("sft"))
        self.suite(tmp_path, tasks=[{**PAIRS, "data": "none.jsonl"}])
        assert "no such file" in self.refused(setting("sft"))

    @pytest.mark.parametrize(
        ("dev", "said"),
        [
            ({"general": ["pairs"]}, "pairs is named twice"),
            ({"tolerance": 0.1}, "tolerance is only read with general"),
            ({"every": 0}, "greater than or equal to 1"),
        ],
    )
    def test_contradictions(self, setting: Setting, dev: dict[str, Any], said: str) -> None:
        with pytest.raises(RecipeError, match=said):
            setting("sft", **dev)

    def test_a_sound_one_is_not(self, setting: Setting) -> None:
        prepared = prepare(setting("sft"), resume=False, overwrite=False, force=False)
        assert prepared.dev is not None
        assert prepared.dev.suite.name == "dev"

    @pytest.mark.parametrize("method", ["sft", "grpo", "cpt"])
    def test_items_that_are_trained_on(
        self, method: str, setting: Setting, write_rows: WriteRows
    ) -> None:
        """Found in demonstrations, tasks and texts, whatever else stands in their rows."""
        asked = [OTHERS[0], EQUATIONS[3], OTHERS[1]]
        write_rows("few.jsonl", [{"prompt": user(e)} for e in asked])
        if method == "cpt":
            whole = f"{user(EQUATIONS[3])[0]['content']}\n{solution(EQUATIONS[3])}"
            write_rows("text.jsonl", [{"text": solution(EQUATIONS[0])}, {"text": whole}])
        said = self.refused(setting(method))
        file = {"sft": "sft", "grpo": "tasks", "cpt": "text"}[method]
        assert f"{file}.jsonl:{2 if method == 'cpt' else 4}" in said
        assert "few.jsonl:2: 1 of " in said
        prepare(setting(method), resume=False, overwrite=False, force=True)  # reckless, not wrong


def test_names_of_scores_are_those_that_are_produced(setting: Setting, tmp_path: Path) -> None:
    """Every kind of task that brings no code of its own."""
    passages = [{"text": solution(e)} for e in OTHERS[:4]]
    first, second = (solution(e) for e in OTHERS[:2])
    options = [{"prompt": user(OTHERS[0]), "choices": [first, second], "answer": 0}]
    prompts = [{"prompt": "Hurt him.", "harmful": True}, {"prompt": "2 + 2", "harmful": False}]
    for name, rows in (("text_", passages), ("choice_", options), ("safe_", prompts)):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    short = {"temperature": 0.0, "max_tokens": 4}
    tasks = [
        GREEDY,
        PAIRS,
        {"kind": "perplexity", "name": "p", "data": "text_.jsonl"},
        {"kind": "choice", "name": "c", "data": "choice_.jsonl"},
        {"kind": "safety", "name": "s", "data": "safe_.jsonl", "sampling": short},
    ]
    (tmp_path / "dev.yaml").write_text(yaml.safe_dump({"name": "dev", "tasks": tasks}))
    suite = load(Suite, tmp_path / "dev.yaml")
    rows = metrics(train(setting("sft", "run.steps=1", final="last")).parent)
    found = {name[4:] for name in rows[0] if name.startswith("dev/")}
    assert found == set(score_names(suite))


def test_a_score_of_an_own_task_is_looked_for_at_step_0(setting: Setting, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "def evaluate(generate, seed):\n    yield {'item': '1', 'score': 1.0, 'task': 'length'}\n"
    )
    own = {"kind": "python", "name": "own", "file": "own.py"}
    (tmp_path / "dev.yaml").write_text(yaml.safe_dump({"name": "dev", "tasks": [own]}))
    recipe = setting("sft", metric="own/lenght")
    with pytest.raises(RecipeError, match="its scores are own/length"):
        train(recipe)
    rows = list(read_rows(train(setting("sft", metric="own/length", every=6)).parent
                          / "metrics.jsonl"))  # fmt: skip
    assert rows[0] == {"step": 0, "dev/own/length": 1.0}
    assert "loss" in rows[1]
