"""One pipeline from a raw export to training: build, clean, check, generate as stages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from strop.demo.world import all_equations, assistant, solution, user
from strop.errors import DataError
from strop.pipeline import plan
from strop.recipe.loading.load import load
from strop.recipe.pipeline import Pipeline
from tests.support.pipelines import edit, run
from tests.support.planned import read_jsonl
from tests.support.runs import write_jsonl

STAGES = """
name: raw
stages:
  - kind: data
    name: build
    verb: build
    inputs: export.jsonl
    output: records
    options: {kinds: [feedback]}
  - kind: data
    name: clean
    verb: clean
    inputs: records/feedback.jsonl
    output: clean.jsonl
    options: {pii: replace}
  - kind: data
    name: check
    verb: check
    inputs: clean.jsonl
    output: checked
  - {kind: train, name: kto, recipe: kto.yaml}
"""


@pytest.fixture
def pipeline(tmp_path: Path, model_folder: Path) -> Path:
    rows = [
        {"request": {"messages": user(e)}, "response": {"choices": [
            {"message": assistant(solution(e) if n % 2 else "Ask ann.lee@example.org.")[0]}]},
         "id": f"r{n}", "feedback": "up" if n % 2 else "down"}
        for n, e in enumerate(all_equations()[::61])
    ]  # fmt: skip
    write_jsonl(tmp_path / "export.jsonl", rows)
    (tmp_path / "kto.yaml").write_text(
        f"method: kto\noutput: runs/kto\nmodel: {model_folder}\ndata: clean.jsonl\n"
        "optim: {learning_rate: 1.0e-6}\nrun: {steps: 1, batch_size: 4}\n"
    )
    (tmp_path / "pipeline.yaml").write_text(STAGES)
    return tmp_path / "pipeline.yaml"


def actions(file: Path) -> dict[str, str]:
    return {row.stage.name: row.action for row in plan(load(Pipeline, file))}


def test_from_an_export_to_training(pipeline: Path) -> None:
    folder = pipeline.parent
    outcomes = run(pipeline)
    assert outcomes == dict.fromkeys(("build", "clean", "check", "kto"), "done")
    assert "ann.lee" not in (folder / "clean.jsonl").read_text()
    assert {row["label"] for row in read_jsonl(folder / "clean.jsonl")} == {True, False}
    found = json.loads((folder / "checked/check.json").read_text())
    assert found["files"] == [str(folder / "clean.jsonl")]
    assert (folder / "checked/check.html").read_text().startswith("<")
    (manifest,) = json.loads((folder / "runs/kto/lineage.json").read_text())["manifests"]
    assert manifest["made_by"] == "strop data clean"
    assert set(actions(pipeline).values()) == {"skip"}


def test_a_check_that_fails_stops_the_pipeline(pipeline: Path) -> None:
    edit(pipeline, "output: checked", "output: checked\n    options: {fail_on: warn}")
    with pytest.raises(DataError, match=r"the check found \d+ warn"):
        run(pipeline)
    assert (pipeline.parent / "checked/check.html").exists()
    assert actions(pipeline)["check"] == "run"
    assert not (pipeline.parent / "runs").exists()


def test_recorded_answers_become_pairs(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "tasks.jsonl", [{"prompt": "1 + 1", "answer": "2"}])
    said = [{"prompt": "1 + 1", "completion": text} for text in ("2", "3")]
    write_jsonl(tmp_path / "said.jsonl", said)
    file = tmp_path / "pipeline.yaml"
    file.write_text(
        "name: pairs\nstages:\n"
        "  - {kind: data, name: pairs, verb: generate best-of, inputs: tasks.jsonl,\n"
        "     output: pairs.jsonl, options: {engine: {recorded: said.jsonl}, samples: 2,\n"
        "     keep: pair, reward: [{function: exact_answer}]}}\n"
    )
    run(file)
    (pair,) = read_jsonl(tmp_path / "pairs.jsonl")
    assert (pair["chosen"], pair["rejected"], pair["margin"]) == ("2", "3", 1.0)
    assert actions(file) == {"pairs": "skip"}
