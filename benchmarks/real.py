"""A real model's cases: the files that `make real` left, as both sides read them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from benchmarks.cases import Run

SOURCES = {
    "real-dpo": ("base", "data/pairs/preferences.jsonl"),
    "real-grpo": ("runs/sums-sft/final", "data/sums_tasks.jsonl"),
    "real-sampler": ("base", "data/everyday.jsonl"),
}
"""The model and the records of a case. GRPO goes on from the cold start: the base is rewarded for
hardly any answer, and groups that agree cost strop nothing."""


def missing(run: Run, example: Path) -> Path | None:
    """What the case needs and `make real` has not left in `example`."""
    wanted = [example / one for one in SOURCES[run.case.name]]
    return next((path for path in wanted if not path.exists()), None)


def copy_real(run: Run, example: Path, folder: Path) -> None:
    """The case's model and as many of its records as its steps need."""
    model, records = (example / one for one in SOURCES[run.case.name])
    shutil.copytree(model, folder / "model", dirs_exist_ok=True)
    rows = list(_records(run, records, AutoTokenizer.from_pretrained(model)))
    wanted = run.case.batch * run.steps
    many = (rows * (wanted // len(rows) + 1))[:wanted]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in many))


def _records(run: Run, path: Path, tokenizer: Any) -> Iterator[dict[str, Any]]:
    """Pairs are written as text: of messages TRL would also learn the newline after an answer's
    end, which the model's template writes and no answer has."""
    for line in path.open():
        row = json.loads(line)
        if run.case.kind != "dpo":
            yield {key: row[key] for key in ("prompt", "answer") if key in row}
            continue
        prompt = tokenizer.apply_chat_template(
            row["prompt"], tokenize=False, add_generation_prompt=True
        )
        answers = {name: row[name][-1]["content"] for name in ("chosen", "rejected")}
        yield {"prompt": prompt, **answers}
