"""Per-item scores on disk: one JSON line an item, in the form the gate reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from strop.errors import DataError
from strop.types import EvalRecord

RECORDS = "records.jsonl"


def write_records(path: Path, records: Iterable[EvalRecord]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        for record in records:
            stream.write(json.dumps(asdict(record)) + "\n")


def read_records(path: str | Path) -> list[EvalRecord]:
    """Records of an eval folder or of a plain file with rows `{"item", "score"[, "cluster"]}`.

    Raises `DataError` with file and line for a row that is not of that form.
    """
    file = Path(path)
    file = file / RECORDS if file.is_dir() else file
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the scores: {error}", where=str(file)) from None
    records = [
        _record(line, f"{file}:{number}") for number, line in enumerate(lines, 1) if line.strip()
    ]
    if not records:
        raise DataError("the file holds no scores", where=str(file))
    return records


def mean_scores(records: Sequence[EvalRecord]) -> dict[str, float]:
    """Mean score of every task over its scored items."""
    totals: dict[str, list[float]] = {}
    for record in records:
        if record.score is not None:
            totals.setdefault(record.task, []).append(record.score)
    return {task: sum(scores) / len(scores) for task, scores in totals.items()}


def _record(line: str, where: str) -> EvalRecord:
    try:
        row: Any = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"broken JSON: {error}", where=where) from None
    if not isinstance(row, dict) or "item" not in row or "score" not in row:
        raise DataError("the row has no item or no score", where=where,
                        fix='write {"item": "7", "score": 1.0}')  # fmt: skip
    score = row["score"]
    if score is not None and (isinstance(score, str) or not -1e300 < float(score) < 1e300):
        raise DataError(f"score {score!r} is not a finite number", where=where)
    return EvalRecord(
        task=str(row.get("task", "score")),
        item=str(row["item"]),
        score=None if score is None else float(score),
        cluster=str(row.get("cluster", row["item"])),
        sample=int(row.get("sample", 0)),
        output=str(row.get("output", "")),
        details=row.get("details") or {},
    )
