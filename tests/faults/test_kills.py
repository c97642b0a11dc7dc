"""`kill -9` at any instant: what the run ends with is what it would have ended with."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from strop.train.rundir.checkpoint import step_of
from tests.faults.kills import differences, killed, left_alone
from tests.support.processes import Child
from tests.support.runs import latest_checkpoint


@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_fault_2_killed_at_random_instants(method: str, recipes: dict[str, Path]) -> None:
    """Two anywhere between start and end, one in the middle of a checkpoint."""
    options = ["run.steps=12", "run.save_every=4"]
    whole, seconds = left_alone(recipes[method], options)
    generator = random.Random(method)
    instants = [generator.uniform(0.2, 0.8) * seconds for _ in range(2)]
    assert differences(whole, killed(recipes[method], options, instants, [3])) == []


def test_fault_1_killed_in_a_checkpoint(recipes: dict[str, Path], tmp_path: Path) -> None:
    """The one before is used, and the rubbish is cleaned."""
    arguments = ["train", recipes["sft"], "--resume"]
    run = recipes["sft"].parent / "runs/sft"
    files = len(list(_whole_checkpoint(recipes["sft"], tmp_path).rglob("*")))
    child = Child(arguments, tmp_path / "log", dies_at=files + 2 + 5)  # 2: folder, its parent
    assert child.end() == -9
    assert step_of(latest_checkpoint(run)) == 2
    assert (run / ".checkpoint-4.tmp").is_dir()
    assert not (run / "checkpoint-4").exists()
    child = Child(arguments, tmp_path / "log")
    assert child.end() == 0, child.said
    assert step_of(latest_checkpoint(run)) == 6
    assert not list(run.glob(".*"))


def _whole_checkpoint(recipe: Path, folder: Path) -> Path:
    output = folder / "other"
    child = Child(
        ["train", recipe, "--set", f"output={output}", "--set", "run.steps=2"], folder / "log"
    )
    assert child.end() == 0, child.said
    return output / "checkpoint-2"
