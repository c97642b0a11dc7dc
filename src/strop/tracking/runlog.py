"""Append-only JSON lines: one row a step, readable while the run goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from strop.errors import TrainingError
from strop.files import write_rows


class RunLog:
    """Appends rows to a JSONL file; a number that is not finite is written as null.

    Raises `TrainingError` if a row cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, row: Mapping[str, Any]) -> None:
        line = json.dumps({key: _finite(value) for key, value in row.items()}) + "\n"
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(line)
        except OSError as error:
            raise TrainingError(
                f"a row cannot be written: {error.strerror}",
                where=str(self.path),
                fix="make room or mend the disk, then go on with --resume",
            ) from error

    def truncate_after(self, step: int) -> None:
        """Drop rows of later steps (and a half-written last line), before a resumed run goes on."""
        if not self.path.exists():
            return
        kept = [row for row in read_rows(self.path) if int(row["step"]) <= step]
        write_rows(self.path, kept)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a log; a line cut short by a crash is left out."""
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            if not line.endswith("\n"):
                return
            yield json.loads(line)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
