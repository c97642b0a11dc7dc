"""The rows of a traffic folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from strop.errors import UsageError

NAMES = "traffic-*.jsonl"
"""The files of a log, in the order of their names."""


def files_in(folder: Path) -> list[Path]:
    return sorted(folder.glob(NAMES))


def rows_in(folder: Path) -> Iterator[dict[str, Any]]:
    """All whole rows, the oldest first. Raises `UsageError` where there is no log."""
    files = files_in(folder)
    if not files:
        raise UsageError("no traffic of `strop serve` is here", where=str(folder),
                         fix="give the folder that it was started with: --traffic DIR")  # fmt: skip
    for file in files:
        with file.open("rb") as stream:
            yield from (json.loads(line) for line in stream if line.endswith(b"\n"))
