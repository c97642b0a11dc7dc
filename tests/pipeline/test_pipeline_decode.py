"""A decoding study as a stage: planned, done once, and done again for another study or model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from strop.errors import RecipeError
from strop.evals.decode import study
from strop.pipeline import plan
from strop.recipe.loading.load import load
from strop.recipe.pipeline import Pipeline
from tests.support.pipelines import edit, run, write_twice
from tests.support.runs import Stop

STAGE = """  - {kind: decode, name: study, study: study.yaml, base: runs/sft/final,
     model: runs/dpo/final, output: evals/study}
"""
STUDY = """data: tasks.jsonl
scores: [{file: rewards.py, function: even}]
serving_temperature: 1.0
temperatures: [1.0]
samples: 2
sampling: {max_tokens: 3}
"""


@pytest.fixture
def pipeline(tmp_path: Path, model_folder: Path) -> Path:
    file = write_twice(tmp_path, model_folder)
    text = file.read_text()
    kept = text[: text.index("  - {kind: eval, name: eval-base")]
    stages = [line for line in text.splitlines(keepends=True) if "kind: train" in line]
    file.write_text(kept + "".join(stages) + STAGE)
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "tasks.jsonl").write_text(
        "".join(json.dumps({"prompt": f"{n}x = 6"}) + "\n" for n in range(1, 13))
    )
    (tmp_path / "rewards.py").write_text(
        "def even(prompts, completions, **columns):\n"
        "    return [float(len(text) % 2 == 0) for text in completions]\n"
    )
    return file


def planned(file: Path) -> tuple[str, str, tuple[str, ...]]:
    row = plan(load(Pipeline, file))[-1]
    return row.action, row.why, tuple(row.needs)


def test_it_needs_both_models_and_is_skipped_when_up_to_date(pipeline: Path) -> None:
    assert planned(pipeline) == ("run", "never ran", ("dpo", "sft"))
    assert run(pipeline)["study"] == "done"
    made = json.loads((pipeline.parent / "evals/study/decode.json").read_text())
    assert made["items"] == 12
    assert made["model"]["path"].endswith("runs/dpo/final")
    assert planned(pipeline)[:2] == ("skip", "up to date")
    assert run(pipeline)["study"] == "skipped"


def test_another_study_or_model_runs_it_again(pipeline: Path) -> None:
    run(pipeline)
    edit(pipeline.parent / "study.yaml", "samples: 2", "samples: 3")
    assert planned(pipeline)[:2] == ("run", "the study, its data or a model changed")
    edit(pipeline.parent / "study.yaml", "samples: 3", "samples: 2")
    assert planned(pipeline)[0] == "skip"
    rewards = pipeline.parent / "rewards.py"
    edit(rewards, "% 2 == 0", "% 2 == 1")  # what judges is part of a study
    assert planned(pipeline)[:2] == ("run", "the study, its data or a model changed")
    edit(rewards, "% 2 == 1", "% 2 == 0")
    edit(pipeline.parent / "dpo.yaml", "1.0e-5", "2.0e-5")
    assert planned(pipeline)[0] == "wait"
    assert run(pipeline)["study"] == "done"


def test_a_study_that_is_not_there_is_refused_with_its_line(pipeline: Path) -> None:
    edit(pipeline, "study: study.yaml", "study: other.yaml")
    with pytest.raises(RecipeError, match=r"other\.yaml is not there") as caught:
        plan(load(Pipeline, pipeline))
    assert str(pipeline) in str(caught.value)


def test_an_interrupted_study_goes_on(pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*args: object) -> None:
        raise Stop

    with monkeypatch.context() as patched:
        patched.setattr(study, "judged_items", stopped)  # all answers are sampled by then
        with pytest.raises(Stop):
            run(pipeline)
    assert planned(pipeline)[:2] == ("resume", "half sampled")
    assert run(pipeline)["study"] == "done"
    assert planned(pipeline)[:2] == ("skip", "up to date")
