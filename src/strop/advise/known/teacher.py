"""What is known of a stronger model that could teach this one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from strop.advise.known.evals import Target, read_eval
from strop.errors import UsageError
from strop.evals.records import read_records
from strop.model.load import expect_weights, load_config, load_tokenizer, weights_hash
from strop.stats.compare import superiority
from strop.train.preflight.cost.shape import shape_of
from strop.train.teachers.build import tokens_hash


def read_teacher(folder: Path, model: Path | None) -> dict[str, Any]:
    """`{"same_tokens": True, "teacher_times": 8.0}`: whether the ids of both mean the same tokens,
    and how many times as large the teacher is."""
    if model is None:
        raise UsageError("--teacher says nothing without the model that would learn from it",
                         fix="add --model FOLDER")  # fmt: skip
    expect_weights(str(folder))
    if weights_hash(str(folder)) == weights_hash(str(model)):
        raise UsageError("--teacher and --model hold the same weights", where=str(folder),
                         fix="name a stronger model, or drop --teacher")  # fmt: skip
    sizes = [shape_of(load_config(str(one), False)).parameters for one in (folder, model)]
    hashes = [tokens_hash(load_tokenizer(str(one))) for one in (folder, model)]
    return {"same_tokens": hashes[0] == hashes[1], "teacher_times": sizes[0] / sizes[1]}


def read_taught(folder: Path, own: Path | None, target: Target | None) -> dict[str, Any]:
    """How far the teacher's score is above the model's on the same items, with the lower end of its
    95 % interval. Raises `UsageError` where there is nothing to compare it with."""
    if own is None:
        raise UsageError("--teacher-eval is compared with an eval of the model",
                         fix="add --eval FOLDER, of the same suite")  # fmt: skip
    name = read_eval(own, target).score
    if name is None:
        raise UsageError("it is not known which score counts",
                         fix="add --target SCORE=VALUE")  # fmt: skip
    mine, theirs = _by_item(own, name), _by_item(folder, name)
    if mine.keys() != theirs.keys():
        raise UsageError(
            f"the two evals do not have the same items of {name}",
            where=str(folder),
            fix="run the same suite on both models",
        )
    items = sorted(mine)
    found = superiority([mine[one] for one in items], [theirs[one] for one in items])
    return {"teacher_gain": found.estimate, "teacher_gain_low": found.low}


def _by_item(folder: Path, name: str) -> dict[str, float]:
    """The mean score of each item that has one."""
    scores: dict[str, list[float]] = {}
    for record in read_records(folder):
        if record.task == name and record.score is not None:
            scores.setdefault(record.item, []).append(record.score)
    return {item: float(np.mean(values)) for item, values in scores.items()}
