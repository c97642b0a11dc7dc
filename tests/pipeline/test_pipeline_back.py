"""A refused gate goes back to a training stage: attempts differ, are kept, counted, and end."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from strop.errors import RecipeError
from strop.model.load import weights_hash
from strop.pipeline import GateRefused, Planned, attempts, plan
from strop.recipe.loading.load import load
from strop.recipe.pipeline import Pipeline
from strop.registry.store import Registry
from tests.support.pipelines import contents, edit, run, write_twice
from tests.support.runs import Stop, final_weights, same, stop_at

IMPOSSIBLE = "targets: [{score: pairs, min_gain: 5}]\n"
"""No share of pairs rises by 5."""


@pytest.fixture
def pipeline(tmp_path: Path, model_folder: Path) -> Path:
    """DPO is judged by a policy of its own, which nothing fulfils."""
    file = write_twice(tmp_path, model_folder)
    (tmp_path / "hard.yaml").write_text(IMPOSSIBLE)
    edit(file, "name: gate-dpo, policy: policy.yaml", "name: gate-dpo, policy: hard.yaml")
    return file


def back_to(file: Path, how: str) -> None:
    edit(file, "output: gates/dpo.json}", f"output: gates/dpo.json, back_to: {{{how}}}}}")


def planned(file: Path) -> dict[str, Planned]:
    return {row.stage.name: row for row in plan(load(Pipeline, file))}


def recipe_in(folder: Path) -> dict[str, Any]:
    recipe: dict[str, Any] = yaml.safe_load((folder / "recipe.resolved.yaml").read_text())
    return recipe


def recorded(file: Path) -> list[tuple[str, str]]:
    """(stage, outcome) in order, up to the end or the refusal."""
    seen: list[tuple[str, str]] = []
    try:
        run(file, on_stage=lambda stage: seen.append((stage.name, stage.kind)))
    except GateRefused:
        seen.append(("refused", "gate"))
    return seen


def test_attempts_use_the_lists_then_the_seed_and_are_kept(pipeline: Path) -> None:
    back_to(pipeline, "stage: dpo, times: 2, set: [[optim.learning_rate=5.0e-6]]")
    seen = recorded(pipeline)
    assert [name for name, _ in seen[5:]] == ["dpo", "eval-dpo", "gate-dpo"] * 3 + ["refused"]
    runs = pipeline.parent / "runs"
    rates = {}
    for name in ("dpo.attempt-1", "dpo.attempt-2", "dpo"):
        recipe = recipe_in(runs / name)
        rates[name] = (recipe["optim"]["learning_rate"], recipe["seed"])
    assert rates == {"dpo.attempt-1": (1e-5, 0), "dpo.attempt-2": (5e-6, 0), "dpo": (1e-5, 2)}
    hashes = [weights_hash(runs / name / "final") for name in rates]
    assert len(set(hashes)) == 3
    # what was judged lies beside what it was judged by
    for name in ("attempt-1", "attempt-2"):
        verdict = json.loads((pipeline.parent / f"gates/dpo.{name}.json").read_text())
        assert verdict["candidate"]["sha256"] == weights_hash(runs / f"dpo.{name}/final")
        assert (pipeline.parent / f"evals/dpo.{name}/records.jsonl").exists()
        assert (pipeline.parent / f"gates/dpo.{name}.html").exists()
    assert not (runs / "sft.attempt-1").exists()
    judged = Registry(pipeline.parent / "registry.db").attempts()
    assert [attempt.candidate for attempt in judged[1:]] == hashes


def test_no_further_attempts_when_run_again(pipeline: Path) -> None:
    back_to(pipeline, "stage: dpo")
    assert recorded(pipeline)[-1] == ("refused", "gate")
    row = planned(pipeline)["gate-dpo"]
    assert (row.action, row.why) == ("skip", "up to date: inconclusive, so the run ends here") or (
        row.why == "up to date: regressed, so the run ends here"
    )
    before = contents(pipeline.parent)
    with pytest.raises(GateRefused) as caught:
        run(pipeline)
    assert caught.value.exit_code in (10, 11)
    assert contents(pipeline.parent) == before
    edit(pipeline, "stage: dpo", "stage: dpo, times: 2")
    assert {n: r.action for n, r in planned(pipeline).items() if r.action != "skip"} == {
        "dpo": "run", "eval-dpo": "run", "gate-dpo": "run", "promote-dpo": "wait",
    }  # fmt: skip
    assert planned(pipeline)["dpo"].why == "attempt 3"
    recorded(pipeline)
    assert recipe_in(pipeline.parent / "runs/dpo")["seed"] == 2


def test_the_attempt_that_passes_is_promoted(pipeline: Path) -> None:
    """SFT at a rate of nothing gains nothing; at the rate of the second attempt it does."""
    folder = pipeline.parent
    edit(folder / "sft.yaml", "1.0e-3", "1.0e-9")
    edit(folder / "sft.yaml", "steps: 6, batch_size: 4", "steps: 30, batch_size: 8")
    (folder / "policy.yaml").write_text("targets: [{score: pairs, min_gain: 0.0}]\n")
    edit(pipeline, "output: gates/sft.json}", "output: gates/sft.json, back_to: {stage: sft, "
         "set: [[optim.learning_rate=1.0e-2]]}}")  # fmt: skip
    text = pipeline.read_text()
    pipeline.write_text(text[: text.index("  - {kind: train, name: dpo")])
    outcomes = run(pipeline)
    assert outcomes == {"eval-base": "done", "sft": "done", "eval-sft": "done",
                        "gate-sft": "done", "promote-sft": "done"}  # fmt: skip
    assert recipe_in(folder / "runs/sft")["optim"]["learning_rate"] == 1e-2
    assert set(run(pipeline).values()) == {"skipped"}
    # another recipe is a first attempt again
    edit(folder / "sft.yaml", "1.0e-9", "2.0e-9")
    assert planned(pipeline)["sft"].why == "recipe changed: optim.learning_rate"
    run(pipeline)
    rates = [recipe_in(folder / f"runs/sft{kept}")["optim"]["learning_rate"]
             for kept in (".attempt-1", ".attempt-2", "")]  # fmt: skip
    assert rates == [1e-9, 2e-9, 1e-2]


def test_after_the_last_attempt_a_refusal_may_be_passed_by(pipeline: Path) -> None:
    back_to(pipeline, "stage: dpo")
    edit(pipeline, "back_to: {", "on_refusal: continue, back_to: {")
    text = pipeline.read_text()
    pipeline.write_text(text[: text.index("  - {kind: promote, name: promote-dpo")])
    assert run(pipeline)["gate-dpo"] == "refused"
    assert recipe_in(pipeline.parent / "runs/dpo")["seed"] == 1


def test_going_back_further_takes_what_depends_with_it(pipeline: Path) -> None:
    """Back to SFT: DPO is trained from the new parent; what does not depend on SFT is not run."""
    back_to(pipeline, "stage: sft")
    seen = recorded(pipeline)
    again = [name for name, _ in seen[8:]]
    assert again == ["sft", "eval-sft", "gate-sft", "promote-sft", "dpo", "eval-dpo", "gate-dpo",
                     "refused"]  # fmt: skip
    runs = pipeline.parent / "runs"
    assert recipe_in(runs / "sft")["seed"] == 1
    lineage = json.loads((runs / "dpo/lineage.json").read_text())
    assert lineage["parent"]["sha256"] == weights_hash(runs / "sft/final")
    assert lineage["parent"]["sha256"] != weights_hash(runs / "sft.attempt-1/final")
    assert not (pipeline.parent / "evals/base.attempt-1").exists()


def test_a_kept_adapter_keeps_its_base(pipeline: Path) -> None:
    """An adapter on a model of the same attempt: both are moved, and it still finds its base."""
    edit(pipeline.parent / "dpo.yaml", "model: runs/sft/final",
         "model: {path: runs/sft/final, lora: {rank: 2}}")  # fmt: skip
    back_to(pipeline, "stage: sft")
    recorded(pipeline)
    for kept in (".attempt-1", ""):
        folder = pipeline.parent / f"runs/dpo{kept}/final"
        config = json.loads((folder / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == str(pipeline.parent / f"runs/sft{kept}/final")


@pytest.mark.parametrize("moved", [0, 1, 3])
def test_interrupted_while_an_attempt_is_set_aside(
    pipeline: Path, moved: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After any of the renames: the plan knows, no attempt is lost, the count stands."""
    back_to(pipeline, "stage: dpo")
    done: list[Path] = []

    def rename(here: Path, there: Path) -> None:
        if len(done) == moved:
            raise Stop
        done.append(there)
        os.replace(here, there)

    monkeypatch.setattr(attempts, "move", rename)
    with pytest.raises(Stop):
        run(pipeline)
    monkeypatch.undo()
    actions = {name: row.action for name, row in planned(pipeline).items()}
    assert [name for name, action in actions.items() if action == "run"] == [
        "dpo", "eval-dpo", "gate-dpo",
    ]  # fmt: skip
    assert recorded(pipeline)[-1] == ("refused", "gate")
    folder = pipeline.parent
    assert recipe_in(folder / "runs/dpo.attempt-1")["seed"] == 0
    assert recipe_in(folder / "runs/dpo")["seed"] == 1
    assert (folder / "evals/dpo.attempt-1").exists()
    assert (folder / "gates/dpo.attempt-1.json").exists()
    assert (folder / "gates/dpo.attempt-1.html").exists()
    assert not list(folder.rglob("*.attempt-2"))


def test_an_interrupted_attempt_is_resumed_as_that_attempt(pipeline: Path) -> None:
    back_to(pipeline, "stage: dpo, times: 2")
    begun: list[int] = []

    def stop_in_the_second(record: Any) -> None:
        if record.step == 1:
            begun.append(1)
        if len(begun) == 3:  # sft, dpo, dpo again
            stop_at(5)(record)

    with pytest.raises(Stop):
        run(pipeline, on_step=stop_in_the_second)
    row = planned(pipeline)["dpo"]
    assert (row.action, row.why) == ("resume", "half done at step 4")
    recorded(pipeline)
    runs = pipeline.parent / "runs"
    seeds = [recipe_in(runs / name)["seed"] for name in ("dpo.attempt-1", "dpo.attempt-2", "dpo")]
    assert seeds == [0, 1, 2]
    # as if never interrupted
    whole = final_weights(runs / "dpo.attempt-2")
    other = pipeline.parent / "dpo.yaml"
    edit(other, "output: runs/dpo", "output: runs/alone\nseed: 1")
    alone = pipeline.parent / "alone.yaml"
    alone.write_text("name: alone\nstages: [{kind: train, name: alone, recipe: dpo.yaml}]\n")
    run(alone)
    assert same(whole, final_weights(runs / "alone"))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("stage: dop", "there is no stage 'dop'[\\s\\S]*sft, dpo"),
        ("stage: eval-dpo", "trains nothing"),
        ("stage: promote-dpo", "does not come before gate gate-dpo"),
        ("stage: dpo, set: [[optim.learning_rate=1.0e-5]]", "attempt 2 would be the same run as"),
        ("stage: dpo, times: 2, set: [[seed=4], [seed=4]]", "attempt 3 would be the same run as"),
        ("stage: dpo, set: [[output=elsewhere]]", "would write to another `output`"),
        ("stage: dpo, set: [[optim.learning_rat=1.0e-5]]", "attempt 2: [\\s\\S]*learning_rate"),
        ("stage: dpo, set: [[optim.learning_rate=1.0e-2]]", "attempt 2: [\\s\\S]*learning_rate"),
        ("stage: dpo, set: [[data=b.jsonl]]", "b.jsonl is not there"),
        ("stage: dpo, set: [[seed=1], [seed=2]]", "2 lists for 1 further attempts"),
        ("stage: dpo, times: 0", "greater than or equal to 1"),
        ("stage: dpo, set: [[]]", "at least 1 item"),
        ("times: 2", "missing key"),
    ],
)
def test_ways_back_that_make_no_sense(pipeline: Path, how: str, said: str) -> None:
    back_to(pipeline, how)
    with pytest.raises(RecipeError, match=rf"pipeline.yaml:1\d: [\s\S]*{said}"):
        plan(load(Pipeline, pipeline))


def test_a_way_back_that_the_gate_does_not_see(pipeline: Path) -> None:
    edit(pipeline, "candidate: evals/dpo,", "candidate: evals/base,")
    back_to(pipeline, "stage: dpo")
    with pytest.raises(RecipeError, match="judges nothing made from it"):
        plan(load(Pipeline, pipeline))


def test_two_gates_back_to_one_stage(pipeline: Path) -> None:
    back_to(pipeline, "stage: sft")
    edit(pipeline, "output: gates/sft.json}", "output: gates/sft.json, back_to: {stage: sft}}")
    with pytest.raises(RecipeError, match="gates gate-sft and gate-dpo both go back to sft"):
        plan(load(Pipeline, pipeline))
