"""A pipeline in a process of its own, killed or stopped, ends as one that was left alone."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from strop.pipeline import GateRefused, plan
from strop.recipe.loading.load import load
from strop.recipe.pipeline import Pipeline
from strop.registry.store import Registry
from tests.support.pipelines import edit, run, write_twice
from tests.support.processes import Child
from tests.support.runs import final_weights, same


def write(folder: Path, model: Path) -> Path:
    """The DPO stage is refused once and trained again."""
    folder.mkdir()
    file = write_twice(folder, model)
    (folder / "hard.yaml").write_text("targets: [{score: pairs, min_gain: 5}]\n")
    edit(file, "name: gate-dpo, policy: policy.yaml", "name: gate-dpo, policy: hard.yaml")
    edit(file, "output: gates/dpo.json}", "output: gates/dpo.json, back_to: {stage: dpo}}")
    return file


def test_killed_in_a_stage_and_on_the_way_back(tmp_path: Path, model_folder: Path) -> None:
    whole, killed = (write(tmp_path / name, model_folder) for name in ("whole", "killed"))
    with pytest.raises(GateRefused):
        run(whole)
    folder = killed.parent
    moments = ("runs/sft/checkpoint-2", "gates/dpo.attempt-1.json")
    for goal in (folder / moment for moment in moments):
        assert not goal.exists()
        child = Child(["run", killed], tmp_path / "said")
        child.until(goal.exists)
        child.signal(signal.SIGKILL)
        assert child.end() == -signal.SIGKILL, child.said
    with pytest.raises(GateRefused):
        run(killed)
    for name in ("sft", "dpo.attempt-1", "dpo"):
        left, right = (file.parent / f"runs/{name}" for file in (whole, killed))
        assert same(final_weights(left), final_weights(right)), name
    for folder in (whole.parent, killed.parent):
        assert len(Registry(folder / "registry.db").events("twice")) == 1
        assert not (folder / "runs/dpo.attempt-2").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_by_a_signal(
    number: signal.Signals, code: int, tmp_path: Path, model_folder: Path
) -> None:
    """The stage saves, the command says how to go on, the plan knows the step."""
    file = write_twice(tmp_path, model_folder)
    edit(tmp_path / "sft.yaml", "steps: 6, batch_size: 4, save_every: 2",
         "steps: 4000, batch_size: 4")  # fmt: skip
    child = Child(["run", file], tmp_path / "said")
    log = tmp_path / "runs/sft/metrics.jsonl"
    child.until(lambda: log.exists() and log.stat().st_size > 0)
    child.signal(number)
    assert child.end() == code, child.said
    assert "run the same command again" in child.said
    (checkpoint,) = (tmp_path / "runs/sft").glob("checkpoint-*")
    rows = {row.stage.name: row for row in plan(load(Pipeline, file))}
    assert rows["sft"].action == "resume"
    assert rows["sft"].why == f"half done at step {checkpoint.name.removeprefix('checkpoint-')}"
    assert rows["eval-base"].action == "skip"
