"""A pipeline in a process of its own, killed or stopped, ends as one that was left alone."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from pipelines import edit, run, write_twice
from strop.pipeline import GateRefused, plan
from strop.recipe.loading.load import load
from strop.recipe.pipeline import Pipeline
from strop.registry.store import Registry


def start(file: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "strop.cli", "run", str(file)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


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
        child = start(killed)
        wait_for(lambda goal=goal, child=child: goal.exists() or child.poll() is not None)
        child.kill()
        _, errors = child.communicate(timeout=60)
        assert child.returncode == -signal.SIGKILL, errors
    with pytest.raises(GateRefused):
        run(killed)
    for name in ("sft", "dpo.attempt-1", "dpo"):
        left, right = (
            load_file(file.parent / f"runs/{name}/final/model.safetensors")
            for file in (whole, killed)
        )
        assert left.keys() == right.keys()
        assert all((left[key] == right[key]).all() for key in left), name
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
    child = start(file)
    log = tmp_path / "runs/sft/metrics.jsonl"
    wait_for(lambda: log.exists() and log.stat().st_size > 0)
    child.send_signal(number)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == code, errors
    assert "run the same command again" in errors
    (checkpoint,) = (tmp_path / "runs/sft").glob("checkpoint-*")
    rows = {row.stage.name: row for row in plan(load(Pipeline, file))}
    assert rows["sft"].action == "resume"
    assert rows["sft"].why == f"half done at step {checkpoint.name.removeprefix('checkpoint-')}"
    assert rows["eval-base"].action == "skip"
