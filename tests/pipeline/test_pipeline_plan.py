"""The plan says what then happens, in every state a pipeline can be in, and writes nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from strop.cli.app import app
from strop.errors import RecipeError, UsageError
from strop.pipeline import Observer, Outcome, Planned, plan, run_pipeline
from strop.recipe.loading.load import flat, load, load_recipe
from strop.recipe.pipeline import Pipeline, Stage
from strop.registry.store import Registry
from strop.train.loop.memory import to_learn
from strop.train.rundir.directory import MAY_CHANGE
from tests.support.pipelines import contents, edit, run, write_twice
from tests.support.runs import Stop, stop_at


@pytest.fixture
def pipeline(tmp_path: Path, model_folder: Path) -> Path:
    return write_twice(tmp_path, model_folder)


def planned(file: Path) -> dict[str, Planned]:
    return {row.stage.name: row for row in plan(load(Pipeline, file))}


def expect(file: Path, expected: dict[str, str], *whys: tuple[str, str]) -> dict[str, Any]:
    """Plan, compare with what is expected (`skip` where nothing is said), run, compare again."""
    before = contents(file.parent)
    rows = planned(file)
    assert contents(file.parent) == before
    actions = {name: row.action for name, row in rows.items()}
    assert actions == {**dict.fromkeys(rows, "skip"), **expected}
    for name, why in whys:
        assert rows[name].why == why
    starts: list[int] = []
    outcomes = run(file, on_start=lambda prepared, step: starts.append(step))
    may = {"run": {"done"}, "resume": {"done"}, "skip": {"skipped"}, "wait": {"done", "skipped"}}
    for name, row in rows.items():
        assert outcomes[name] in may[row.action], name
    begun = [row for row in rows.values() if row.action == "resume"]
    assert [f"half done at step {step}" for step in starts if step] == [row.why for row in begun]
    return dict(outcomes)


AFTER_DPO = {"eval-dpo": "wait", "gate-dpo": "wait", "promote-dpo": "wait"}
AFTER_SFT = {"eval-sft": "wait", "gate-sft": "wait", "promote-sft": "wait", "dpo": "wait"}


def test_the_plan_and_the_run_agree(pipeline: Path) -> None:
    folder = pipeline.parent
    fresh = dict.fromkeys(["eval-base", "sft", "eval-sft", "gate-sft", "dpo", "eval-dpo",
                           "gate-dpo"], "run")  # fmt: skip
    outcomes = expect(pipeline, {**fresh, "promote-sft": "wait", "promote-dpo": "wait"})
    assert set(outcomes.values()) == {"done"}
    # two promotions into one entry: the earlier one is not made again
    expect(pipeline, {})
    events = Registry(folder / "registry.db").events("twice")
    assert [event.action for event in events] == ["promote", "promote"]

    edit(folder / "dpo.yaml", "1.0e-5", "2.0e-5")
    outcomes = expect(
        pipeline,
        {"dpo": "run", **AFTER_DPO},
        ("dpo", "recipe changed: optim.learning_rate"),
        ("eval-dpo", "runs if dpo comes out different"),
        ("gate-dpo", "runs if eval-dpo comes out different"),
        ("promote-dpo", "after dpo and gate-dpo"),
    )
    assert {outcomes[name] for name in AFTER_DPO} == {"done"}

    rows = (folder / "sft.jsonl").read_text().splitlines(keepends=True)
    (folder / "sft.jsonl").write_text("".join(rows[1:]))
    outcomes = expect(
        pipeline, {"sft": "run", **AFTER_SFT, **AFTER_DPO}, ("sft", "data changed: sft.jsonl")
    )
    assert {outcomes[name] for name in (*AFTER_SFT, *AFTER_DPO)} == {"done"}


def test_a_stage_that_comes_out_the_same_changes_nothing_else(pipeline: Path) -> None:
    run(pipeline)
    edit(pipeline.parent / "sft.yaml", "save_every: 2", "save_every: 3")
    why = ("sft", "recipe changed: run.save_every")
    outcomes = expect(pipeline, {"sft": "run", **AFTER_SFT, **AFTER_DPO}, why)
    assert {name for name, outcome in outcomes.items() if outcome == "done"} == {"sft"}


def test_interrupted_states(pipeline: Path) -> None:
    with pytest.raises(Stop):
        run(pipeline, on_step=stop_at(1))
    not_yet = {"eval-sft": "run", "gate-sft": "run", "promote-sft": "wait", "dpo": "run",
               "eval-dpo": "run", "gate-dpo": "run", "promote-dpo": "wait"}  # fmt: skip
    assert {name: row.action for name, row in planned(pipeline).items()} == {
        "eval-base": "skip", "sft": "run", **not_yet,
    }  # fmt: skip
    with pytest.raises(Stop):
        run(pipeline, on_step=stop_at(5))
    expect(pipeline, {"sft": "resume", **not_yet}, ("sft", "half done at step 4"))


def test_what_the_advice_on_memory_says_may_change_goes_on(pipeline: Path) -> None:
    """`strop run` and `strop train --resume` read one table; a finished stage stays as it is."""
    file = pipeline.parent / "sft.yaml"
    with pytest.raises(Stop):
        run(pipeline, on_step=stop_at(5))
    advice = to_learn(load_recipe(file))
    named = {key for key in flat(load_recipe(file).plain()) if "." in key and key in advice}
    free = {"run.micro_batch_tokens", "model.gradient_checkpointing"}
    assert named == {*free, "text.max_length"}
    assert {key for key in named if key in MAY_CHANGE} == free

    edit(file, "save_every: 2", "save_every: 2, micro_batch_tokens: 64")
    edit(file, "model: ", "alarms: {spike: off}\nmodel: ")
    assert planned(pipeline)["sft"] == Planned(
        planned(pipeline)["sft"].stage, "resume", "half done at step 4", ()
    )
    starts: list[int] = []
    run(pipeline, on_start=lambda prepared, step: starts.append(step))
    assert starts == [4, 0], "SFT goes on, DPO begins"
    edit(file, "micro_batch_tokens: 64", "micro_batch_tokens: 32")
    assert planned(pipeline)["sft"].action == "skip"
    # an alarm might have ended the run that is finished
    edit(file, "spike: off", "spike: stop")
    assert planned(pipeline)["sft"].why == "recipe changed: alarms.spike.action"


def test_interrupted_after_every_stage(pipeline: Path) -> None:
    """What is done stays done, and everything is done once."""
    loaded = load(Pipeline, pipeline)
    done: list[str] = []

    def stop(stage: Stage, outcome: Outcome, said: str) -> None:
        if outcome == "done":
            done.append(stage.name)
            raise Stop

    names = [stage.name for stage in loaded.stages]
    for number in range(len(names)):
        *before, now = [row.action for row in plan(loaded)[: number + 1]]
        assert set(before) <= {"skip"}
        assert now == "run"
        with pytest.raises(Stop):
            run_pipeline(loaded, Observer(on_outcome=stop))
    assert done == names
    expect(pipeline, {})


def test_what_a_gate_reads(pipeline: Path) -> None:
    run(pipeline)
    folder = pipeline.parent
    edit(folder / "policy.yaml", "0.9", "0.8")
    changed = {"gate-sft": "run", "gate-dpo": "run", "promote-sft": "wait", "promote-dpo": "wait"}
    outcomes = expect(pipeline, changed, ("gate-sft", "the policy or the evals changed"))
    assert {outcomes[name] for name in changed} == {"done"}
    (folder / "gates/dpo.json").unlink()
    outcomes = expect(pipeline, {"gate-dpo": "run", "promote-dpo": "wait"})
    assert outcomes["promote-dpo"] == "skipped"  # the same verdict again
    shutil.rmtree(folder / "evals/dpo")
    outcomes = expect(pipeline, {"eval-dpo": "run", "gate-dpo": "wait", "promote-dpo": "wait"})
    assert (outcomes["eval-dpo"], outcomes["gate-dpo"]) == ("done", "skipped")
    (folder / "gates/dpo.json").write_text('{"name": "pass", "sentence": "trust me"}')
    expect(pipeline, {"gate-dpo": "run", "promote-dpo": "wait"})
    edit(folder / "suite.yaml", "true", "false")
    rows = planned(pipeline)
    assert rows["eval-base"].why == "the suite, what it reads or the reference changed"


def test_an_eval_that_was_interrupted(pipeline: Path) -> None:
    """What was measured of the same inputs is taken over; of others it is not."""
    run(pipeline)
    folder = pipeline.parent
    inputs = json.loads((folder / "evals/dpo/summary.json").read_text())["inputs"]
    partial = folder / "evals/.dpo.partial"
    partial.mkdir()
    (partial / "parts.jsonl").touch()
    (partial / "inputs").write_text("of another model")
    shutil.rmtree(folder / "evals/dpo")
    assert planned(pipeline)["eval-dpo"].why == "never ran"
    (partial / "inputs").write_text(inputs)
    row = planned(pipeline)["eval-dpo"]
    assert (row.action, row.why) == ("resume", "half measured")
    assert run(pipeline)["eval-dpo"] == "done"
    assert planned(pipeline)["eval-dpo"].action == "skip"


def test_a_rollback_is_not_undone(pipeline: Path) -> None:
    run(pipeline)
    store = Registry(pipeline.parent / "registry.db")
    first = store.rollback("twice")
    expect(pipeline, {})
    current = store.current("twice")
    assert current is not None
    assert current.id == first.id


def test_a_reward_that_changed(recipes: dict[str, Path]) -> None:
    folder = recipes["grpo"].parent
    file = folder / "pipeline.yaml"
    file.write_text("name: one\nstages: [{kind: train, name: grpo, recipe: grpo.yaml}]\n")
    run(file)
    expect(file, {})
    edit(folder / "rewards.py", "-float", "-2.0 * float")
    expect(file, {"grpo": "run"}, ("grpo", "rewards changed"))


def test_dry_run_prints_and_writes_nothing(pipeline: Path) -> None:
    long = "a-rather-long-name-of-a-stage-that-somebody-once-chose"
    pipeline.write_text(pipeline.read_text().replace("name: eval-dpo", f"name: {long}"))
    before = contents(pipeline.parent)
    shown = CliRunner().invoke(app, ["run", str(pipeline), "--dry-run"])
    assert shown.exit_code == 0
    lines = shown.output.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0].split() == ["stage", "kind", "action", "why", "needs"]
    assert lines[2].split() == ["sft", "train", "run", "never", "ran"]
    shown = CliRunner().invoke(app, ["run", str(pipeline), "--dry-run", "--json"])
    rows = [json.loads(line) for line in shown.output.splitlines()]
    assert rows[5] == {"stage": "dpo", "kind": "train", "action": "run", "why": "never ran",
                       "needs": ["sft"]}  # fmt: skip
    assert [row["needs"] for row in rows[3:5]] == [["eval-base", "eval-sft"], ["sft", "gate-sft"]]
    assert contents(pipeline.parent) == before


def test_run_prints_the_plan_first(pipeline: Path) -> None:
    shown = CliRunner().invoke(app, ["run", str(pipeline), "--json"])
    rows = [json.loads(line) for line in shown.output.splitlines()]
    assert ["action" in row for row in rows[:10]] == [True] * 9 + [False]
    assert [row["outcome"] for row in rows if "outcome" in row] == ["done"] * 9


class TestMistakes:
    """Each is found by the plan, before anything runs, and says where it is."""

    def expect(self, pipeline: Path, match: str, kind: type[Exception] = RecipeError) -> None:
        before = contents(pipeline.parent)
        for act in (plan, lambda loaded: run(pipeline)):
            with pytest.raises(kind, match=match):
                act(load(Pipeline, pipeline))
        assert contents(pipeline.parent) == before

    def test_a_stage_that_reads_what_a_later_one_writes(self, pipeline: Path) -> None:
        lines = pipeline.read_text().splitlines(keepends=True)
        sft = lines.pop(4)
        assert "name: sft" in sft
        pipeline.write_text("".join([*lines, sft]))
        said = "stage eval-sft reads .*runs/sft/final, which stage sft writes only later"
        self.expect(pipeline, rf"pipeline.yaml:5: {said}\n  fix: list sft before eval-sft")

    def test_a_cycle(self, pipeline: Path) -> None:
        edit(pipeline.parent / "sft.yaml", "data: sft.jsonl", "data: evals/sft/records.jsonl")
        self.expect(pipeline, r"sft.yaml:4: stage sft reads .*later, and eval-sft reads what sft "
                              r"writes\n  fix: one of the two")  # fmt: skip
        edit(pipeline.parent / "sft.yaml", "evals/sft/records.jsonl", "runs/sft/samples.jsonl")
        self.expect(pipeline, r"sft.yaml:4: stage sft reads what it writes itself")

    @pytest.mark.parametrize("output", ["evals/sft", "evals/sft/again", "evals"])
    def test_two_writers(self, pipeline: Path, output: str) -> None:
        edit(pipeline, "output: evals/dpo}", f"output: {output}}}")
        self.expect(pipeline, r"pipeline.yaml:1\d: stages eval-\w+ and eval-dpo both write to ")

    @pytest.mark.parametrize(
        ("file", "old", "new", "said"),
        [
            ("pipeline.yaml", "recipe: sft.yaml", "recipe: a.yaml", "5: .*a.yaml is not there"),
            ("pipeline.yaml", "base: evals/base", "base: evals/a", "7: .*evals/a is not there"),
            ("dpo.yaml", "pairs.jsonl", "a.jsonl", "4: .*a.jsonl is not there"),
            ("dpo.yaml", "pairs.jsonl", "[pairs.jsonl, a.jsonl]", "4: .*a.jsonl is not there"),
            ("suite.yaml", "held_out", "a", "3: .*a.jsonl is not there, and no stage writes it"),
            ("policy.yaml", "guard", "noise: [evals/a]\nguard", "1: .*evals/a is not there"),
            ("dpo.yaml", "runs/sft/final", "./runs/sft/fin", r"3: stage sft writes no .*fin\n"),
            ("dpo.yaml", "runs/sft/final", "./runs/sft", r"3: .* whole run.*\n.*sft/final"),
            ("dpo.yaml", "runs/sft/final", "runs/sft", "3: `runs/sft` is read as the name of"),
        ],
    )
    def test_missing_files(self, pipeline: Path, file: str, old: str, new: str, said: str) -> None:
        edit(pipeline.parent / file, old, new)
        self.expect(pipeline, f"{file}:{said}")

    def test_a_recipe_that_would_be_refused_later(self, pipeline: Path) -> None:
        edit(pipeline.parent / "dpo.yaml", "1.0e-5", "1.0e-2")
        self.expect(pipeline, r"dpo.yaml: .*learning_rate")

    def test_an_output_that_belongs_to_something_else(self, pipeline: Path) -> None:
        (pipeline.parent / "runs/dpo").mkdir(parents=True)
        (pipeline.parent / "runs/dpo/thesis.tex").write_text("mine")
        self.expect(pipeline, r"runs/dpo: the output folder is not empty", UsageError)

    def test_a_broken_state_file(self, pipeline: Path) -> None:
        (pipeline.parent / "registry.twice.json").write_text("{}")
        self.expect(pipeline, r"registry.twice.json: not the state", UsageError)

    def test_without_a_file_the_stage_is_named(self, pipeline: Path) -> None:
        loaded = load(Pipeline, pipeline)
        made = Pipeline(name="x", registry=loaded.registry, stages=loaded.stages[2:])
        with pytest.raises(RecipeError, match=r"stage eval-sft: .*runs/sft/final is not there"):
            plan(made)
