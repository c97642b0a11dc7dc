"""The demo as files: data, recipes, suite, policies and the pipeline that ties them."""

from __future__ import annotations

import random
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from strop.demo.model import save_raw
from strop.demo.world import (
    FILLER,
    Equation,
    assistant,
    demonstration,
    demonstrations,
    split,
    user,
)
from strop.errors import OutputError
from strop.files import write_rows

HELD_OUT = 400
EDITS = 1000
PASSES = 8
"""Demonstrations of each training equation, each with its own slips and filler."""

MARK = "pipeline.yaml"


def write_demo(folder: Path, seed: int) -> Path:
    """Write everything under `folder` and return the pipeline's path.

    A folder that already holds a demo is left as it is, so that edits survive and finished stages
    are skipped; `OutputError` where it holds a demo of another seed or something else.
    """
    if folder.exists() and any(folder.iterdir()):
        return _existing(folder, seed)
    training, held_out = split(seed, HELD_OUT)
    shown = demonstrations(training, seed, PASSES * len(training))
    draw = random.Random(f"edits {seed}")
    texts = [str(row[side][0]["content"]) for row in shown for side in ("prompt", "completion")]
    save_raw(folder / "model", texts, seed)
    data = folder / "data"
    data.mkdir()
    write_rows(data / "demonstrations.jsonl", shown)
    write_rows(
        data / "edits.jsonl", (edit(training[i % len(training)], draw) for i in range(EDITS))
    )
    write_rows(data / "tasks.jsonl", map(task, training))
    write_rows(data / "test.jsonl", map(task, held_out))
    write_rows(data / "test_edits.jsonl", (edit(equation, draw) for equation in held_out))
    for file in files("strop.demo").joinpath("files").iterdir():
        if file.name.endswith((".yaml", ".py")) and file.name != "__init__.py":
            text = Template(file.read_text(encoding="utf-8")).substitute(seed=seed)
            (folder / file.name).write_text(text, encoding="utf-8")
    return folder / MARK


def edit(equation: Equation, draw: random.Random) -> dict[str, Any]:
    """A user deleted the opener of an answer and left the rest: edited is chosen."""
    answer = demonstration(equation, draw).removeprefix(FILLER)
    return {
        "prompt": user(equation),
        "chosen": assistant(answer),
        "rejected": assistant(FILLER + answer),
    }


def task(equation: Equation) -> dict[str, Any]:
    """A question with what the verifier needs."""
    return {"prompt": user(equation), "answer": str(equation.x)}


def _existing(folder: Path, seed: int) -> Path:
    recipe = folder / "sft.yaml"
    if not recipe.exists() or not (folder / MARK).exists():
        raise OutputError(
            "the folder is not empty and not a demo", where=str(folder), fix="choose another --out"
        )
    if f"seed: {seed}\n" not in recipe.read_text():
        raise OutputError(
            f"the folder holds a demo of another seed than {seed}",
            where=str(folder),
            fix="choose another --out, or the seed it was made with",
        )
    return folder / MARK
