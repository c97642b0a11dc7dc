"""The rows of a traffic folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from strop.errors import UsageError

NAME = re.compile(r"traffic-(\d{6,})-\d{8}\.jsonl")
"""The files of a log, in the order of their names: number and day."""


def files_in(folder: Path) -> list[Path]:
    """The files of a log; others that lie there are none of its own."""
    return sorted(file for file in folder.glob("traffic-*.jsonl") if NAME.fullmatch(file.name))


def number_of(file: Path) -> int:
    """`number_of(Path("traffic-000007-20260102.jsonl")) == 7`."""
    return int(file.name.split("-")[1])


def rows_of(file: Path, start: int = 0) -> Iterator[dict[str, Any]]:
    """The whole rows of a file from a byte on. Raises `UsageError` for a line that is none: a kill
    leaves no such line before the last one."""
    with file.open("rb") as stream:
        stream.seek(start)
        for line in stream:
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise UsageError(f"{line[:60]!r} is no row of a log", where=str(file),
                                 fix="the file was damaged: take this line out")  # fmt: skip
            yield row


def expect_files(folder: Path) -> list[Path]:
    """The files of a log. Raises `UsageError` where there are none."""
    files = files_in(folder)
    if not files:
        raise UsageError("no traffic of `strop serve` is here", where=str(folder),
                         fix="give the folder that it was started with: --traffic DIR")  # fmt: skip
    return files


def rows_in(folder: Path) -> Iterator[dict[str, Any]]:
    """All whole rows, the oldest first. Raises `UsageError` where there is no log."""
    for file in expect_files(folder):
        yield from rows_of(file)
