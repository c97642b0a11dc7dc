"""The demo's algebra world: its model after supervised fine-tuning, and its tasks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from benchmarks.cases import Run
from strop.cli.show import setup
from strop.demo.write import write_demo
from strop.recipe.loading.load import load_recipe
from strop.train.run import train
from strop.train.rundir.directory import is_finished


def build_algebra(run: Run, folder: Path) -> None:
    """Train the demo's first stage once for all runs beside each other."""
    world = folder.parent / "algebra"
    final = world / "runs/sft/final"
    if not is_finished(world / "runs/sft"):
        setup()
        shutil.rmtree(world, ignore_errors=True)
        write_demo(world, seed=0)
        train(load_recipe(world / "sft.yaml"))
    shutil.copytree(final, folder / "model", dirs_exist_ok=True)
    rows = [json.loads(line) for line in (world / "data/tasks.jsonl").open()]
    wanted = run.case.batch * run.steps
    many = (rows * (wanted // len(rows) + 1))[:wanted]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in many))
