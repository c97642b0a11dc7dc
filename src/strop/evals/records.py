"""Per-item scores on disk: one JSON line per item, in the form that the gate reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from math import fsum
from pathlib import Path
from typing import Any

from strop.data.json_text import parsed
from strop.errors import DataError, MissingEvidenceError
from strop.evals.folders import kind_of
from strop.evals.lm_eval.log import holds_log_samples, read_log_samples
from strop.evals.scale import within
from strop.files import read_text, write_rows
from strop.recipe.loading.yaml_text import shown
from strop.types import EvalRecord, Scale

RECORDS = "records.jsonl"


def write_records(path: Path, records: Iterable[EvalRecord]) -> None:
    write_rows(path, (asdict(record) for record in records))


def read_records(path: str | Path) -> list[EvalRecord]:
    """Records of an eval folder, of a plain file with rows `{"item", "score"[, "cluster"]}`, or of
    lm-eval's `--log_samples`.

    Raises `DataError` for another folder, and with file and line for a row that is not of that
    form.
    """
    file = Path(path)
    if not file.exists():
        raise DataError("an eval is wanted here, and nothing is there", where=str(file),
                        fix="name a folder that strop eval wrote, or a file of scores")  # fmt: skip
    if not (file / RECORDS).exists() and holds_log_samples(file):
        return read_log_samples(file)
    if file.is_dir() and not (file / RECORDS).exists():
        raise DataError(f"an eval is wanted here, and this is {kind_of(file)}", where=str(file),
                        fix="name a folder that strop eval wrote (--output)")  # fmt: skip
    file = file / RECORDS if file.is_dir() else file
    lines = read_text(file, DataError).split("\n")
    records = [
        _record(line, f"{file}:{number}") for number, line in enumerate(lines, 1) if line.strip()
    ]
    if not records:
        raise MissingEvidenceError("the file holds no scores", where=str(file),
                                   fix="write a row for every item")  # fmt: skip
    return records


def mean_scores(records: Sequence[EvalRecord]) -> dict[str, float]:
    """Mean score of every task over its scored items, whatever their order."""
    totals: dict[str, list[float]] = {}
    for record in records:
        if record.score is not None:
            totals.setdefault(record.task, []).append(record.score)
    return {task: fsum(scores) / len(scores) for task, scores in totals.items()}


def record_from(row: Mapping[str, Any], where: str) -> EvalRecord:
    """A row as a record; `DataError` names the first invalid value."""
    if "item" not in row or "score" not in row:
        raise DataError("the row has no item or no score", where=where,
                        fix='write {"item": "7", "score": 1.0}')  # fmt: skip
    score, sample = row["score"], row.get("sample", 0)
    details, slices = row.get("details") or {}, row.get("slices") or {}
    number = isinstance(score, int | float) and -1e300 < score < 1e300
    if score is not None and not number:
        raise DataError(f"score {shown(score)} is not a finite number", where=where,
                        fix="write a number, or null if it could not be judged")  # fmt: skip
    if not isinstance(sample, int) or not isinstance(details, dict) or not isinstance(slices, dict):
        raise DataError("sample has to be a whole number, details and slices objects",
                        where=where, fix="mend the row")  # fmt: skip
    return EvalRecord(
        task=str(row.get("task", "score")),
        item=str(row["item"]),
        score=None if score is None else float(score),
        cluster=str(row.get("cluster", row["item"])),
        sample=sample,
        prompt=str(row.get("prompt", "")),
        output=str(row.get("output", "")),
        details=details,
        slices={str(name): str(value) for name, value in slices.items()},
        scale=_scale(row.get("scale"), score, where),
    )


def _scale(given: Any, score: float | None, where: str) -> Scale | None:
    if given is None:
        return None
    ends = list(given) if isinstance(given, list | tuple) else []
    numbers = [isinstance(end, int | float) and not isinstance(end, bool) for end in ends]
    fits = [number or end is None for number, end in zip(numbers, ends, strict=True)]
    if len(ends) != 2 or not all(fits) or (all(numbers) and not ends[0] < ends[1]):
        raise DataError(f"scale {shown(given)} is not [lowest, highest]", where=where,
                        fix="write two numbers, null for no bound, or drop it")  # fmt: skip
    low, high = (None if end is None else float(end) for end in ends)
    if score is not None and not within(score, (low, high)):
        raise DataError(f"score {score:g} is not on its scale {shown(given)}", where=where,
                        fix="mend the score or the scale")  # fmt: skip
    return low, high


def _record(line: str, where: str) -> EvalRecord:
    row = parsed(line, where)
    if not isinstance(row, dict):
        raise DataError("the row has no item or no score", where=where,
                        fix='write {"item": "7", "score": 1.0}')  # fmt: skip
    return record_from(row, where)
