"""A run that a signal ends after the same step in every process, resumed by other numbers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from strop.distributed.world import ALONE, World
from strop.recipe.loading.load import load_recipe
from strop.train.run import train
from strop.types import StepRecord
from tests.support.gloo import in_processes
from tests.support.runs import final_weights, metrics

STEPS = 12


def part(world: World, path: Path, output: Path, ends_after: int, resume: bool) -> None:
    """A run of which the first process alone is told to end, in one step."""

    def tell(record: StepRecord) -> None:
        if record.step == ends_after:
            os.kill(os.getpid(), signal.SIGTERM)

    options = [f"output={output}", f"run.steps={STEPS}", "run.batch_size=6"]
    train(load_recipe(path, options), resume=resume, world=world, on_step=tell)


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_ended_by_a_signal_and_resumed_with_other_numbers(
    method: str, recipes: dict[str, Path], tmp_path: Path
) -> None:
    """Two processes, then one, then three: the run of one process that nobody ended."""
    path, whole, parts = recipes[method], tmp_path / "whole", tmp_path / "parts"
    part(ALONE, path, whole, ends_after=0, resume=False)
    for count, ends_after, resume in ((2, 4, False), (1, 8, True)):
        first, *others = in_processes(count, part, path, parts, ends_after, resume)
        assert (first.kind, first.exit_code) == ("StoppedBySignal", 143)
        assert f"after step {ends_after}; the state was saved" in first.said
        assert [(o.kind, o.exit_code) for o in others] == [("OtherProcessError", 143)] * len(others)
        assert [row["step"] for row in metrics(parts)] == list(range(1, ends_after + 1))
    assert in_processes(3, part, path, parts, 0, True) == [None, None, None]
    right = final_weights(whole)
    for name, weight in final_weights(parts).items():
        assert torch.allclose(weight, right[name], atol=1e-5), name
    for row, also in zip(metrics(whole), metrics(parts), strict=True):
        assert row["loss"] == pytest.approx(also["loss"], rel=1e-3, abs=1e-6)
