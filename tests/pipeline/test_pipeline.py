"""A small pipeline: stages in order, skipped when nothing changed, stopped at a failed gate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from strop.demo.world import all_equations, assistant, solution, user
from strop.errors import MissingEvidenceError
from strop.pipeline import GateRefused, Observer, plan, run_pipeline
from strop.recipe.loading.load import load
from strop.recipe.pipeline import Pipeline
from strop.registry.store import Registry
from tests.support.runs import Stop, WriteRows, stop_at

EQUATIONS = all_equations()[::97]
HELD_OUT = all_equations()[1::97]


@pytest.fixture
def folder(tmp_path: Path, model_folder: Path, write_rows: WriteRows) -> Path:
    write_rows(
        "sft.jsonl",
        [{"prompt": user(e), "completion": assistant(solution(e))} for e in EQUATIONS],
    )
    write_rows("test.jsonl", [{"prompt": user(e), "answer": str(e.x)} for e in HELD_OUT])
    write_rows(
        "pairs.jsonl",
        [{"prompt": user(e), "chosen": solution(e), "rejected": "7 7 7"}
         for e in HELD_OUT],
    )  # fmt: skip
    files = {
        "sft.yaml": f"""
            method: sft
            output: runs/sft
            model: {{path: {model_folder}}}
            data: sft.jsonl
            optim: {{learning_rate: 1.0e-2}}
            run: {{steps: 30, batch_size: 8}}
        """,
        "suite.yaml": """
            name: small
            tasks:
              - kind: generate
                name: tags
                data: test.jsonl
                sampling: {temperature: 1.0, max_tokens: 30}
                samples: 2
                scores: [{function: format_tags}]
              - {kind: preference, name: pairs, data: pairs.jsonl, per_token: true}
        """,
        "policy.yaml": "targets: [{score: pairs, min_gain: 0.0}]",
        "pipeline.yaml": f"""
            name: small
            stages:
              - {{kind: eval, name: before, suite: suite.yaml, model: {model_folder},
                 output: evals/before}}
              - {{kind: train, name: sft, recipe: sft.yaml}}
              - {{kind: eval, name: after, suite: suite.yaml, model: runs/sft/final,
                 reference: {model_folder}, output: evals/after}}
              - {{kind: gate, name: gate, policy: policy.yaml, base: evals/before,
                 candidate: evals/after, output: gate.json}}
              - {{kind: promote, name: promote, model: runs/sft/final, entry: small,
                 verdict: gate.json}}
        """,
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def run(folder: Path) -> dict[str, str]:
    outcomes: dict[str, str] = {}
    observer = Observer(
        on_outcome=lambda stage, outcome, said: outcomes.__setitem__(stage.name, outcome)
    )
    run_pipeline(load(Pipeline, folder / "pipeline.yaml"), observer)
    return outcomes


def test_runs_then_skips_then_reruns_what_changed(folder: Path) -> None:
    assert set(run(folder).values()) == {"done"}
    entry = Registry(folder / "registry.db").entry("small")
    assert entry.lineage["method"] == "sft"
    assert entry.verdict is not None
    assert entry.verdict["candidate"]["sha256"] == entry.weights

    assert set(run(folder).values()) == {"skipped"}

    recipe = folder / "sft.yaml"
    recipe.write_text(recipe.read_text().replace("steps: 30", "steps: 31"))
    changed = run(folder)
    assert (changed["before"], changed["sft"], changed["after"]) == ("skipped", "done", "done")
    assert Registry(folder / "registry.db").entry("small").id != entry.id

    data = folder / "sft.jsonl"
    data.write_text(data.read_text() + data.read_text().splitlines()[0] + "\n")
    assert run(folder)["sft"] == "done"


def test_an_interrupted_stage_is_resumed(folder: Path) -> None:
    recipe = folder / "sft.yaml"
    recipe.write_text(recipe.read_text().replace("batch_size: 8", "batch_size: 8, save_every: 10"))

    pipeline = load(Pipeline, folder / "pipeline.yaml")
    with pytest.raises(Stop):
        run_pipeline(pipeline, Observer(on_step=stop_at(15)))
    started: list[int] = []
    run_pipeline(pipeline, Observer(on_start=lambda prepared, step: started.append(step)))
    assert started == [10]


def test_a_failed_gate_stops_and_promotes_nothing(folder: Path) -> None:
    """And run again, it says the same without another look at the evals."""
    recipe = folder / "sft.yaml"
    recipe.write_text(recipe.read_text().replace("1.0e-2", "1.0e-9"))
    with pytest.raises(GateRefused) as caught:
        run(folder)
    assert caught.value.exit_code in (10, 11)
    judged = (folder / "gate.json").stat().st_mtime_ns
    planned = {row.stage.name: row for row in plan(load(Pipeline, folder / "pipeline.yaml"))}
    assert planned["gate"].action == "skip"
    assert planned["gate"].why.endswith("so the run ends here")
    assert (planned["promote"].action, planned["promote"].why) == ("wait", "gate has refused")
    with pytest.raises(GateRefused) as again:
        run(folder)
    assert str(again.value) == str(caught.value)
    assert again.value.exit_code == caught.value.exit_code
    assert (folder / "gate.json").stat().st_mtime_ns == judged
    assert Registry(folder / "registry.db").names() == []
    assert len(Registry(folder / "registry.db").attempts()) == 1
    assert json.loads((folder / "gate.json").read_text())["name"] != "pass"


def test_a_refusal_can_be_recorded_and_passed_by(folder: Path) -> None:
    recipe, pipeline = folder / "sft.yaml", folder / "pipeline.yaml"
    recipe.write_text(recipe.read_text().replace("1.0e-2", "1.0e-9"))
    text = pipeline.read_text().replace(
        "output: gate.json", "output: gate.json, on_refusal: continue"
    )
    pipeline.write_text(text.split("- {kind: promote")[0])
    assert run(folder)["gate"] == "refused"


def test_other_items_are_missing_evidence(folder: Path) -> None:
    run(folder)
    records = folder / "evals/before/records.jsonl"
    records.write_text("".join(records.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(MissingEvidenceError):
        run(folder)


def test_eval_summary_is_the_mean_of_its_records(folder: Path) -> None:
    run(folder)
    summary = json.loads((folder / "evals/after/summary.json").read_text())
    rows = [json.loads(line) for line in (folder / "evals/after/records.jsonl").open()]
    tags = [row["score"] for row in rows if row["task"] == "tags/format_tags"]
    assert len(tags) == 2 * len(HELD_OUT)
    assert summary["scores"]["tags/format_tags"] == pytest.approx(sum(tags) / len(tags))
    assert summary["kl"] > 0.1
    before = json.loads((folder / "evals/before/summary.json").read_text())
    assert before["kl"] is None
