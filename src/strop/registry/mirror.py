"""A registry's rows as lines that a person can read, beside the database: what a damaged one is
made again from."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from strop.errors import RegistryError
from strop.files import write_rows

ORDER = ("entries", "events", "attempts")
"""Tables, each after those it points into."""


def mirror_of(path: Path) -> Path:
    """`registry.db` -> `registry.db.rows.jsonl`."""
    return path.with_name(f"{path.name}.rows.jsonl")


def write_mirror(db: sqlite3.Connection, path: Path) -> None:
    """Write all rows, whole or not at all; inside the transaction, so that writers take turns."""
    mirror = mirror_of(path)
    write_rows(
        mirror,
        (
            {"table": table, "row": list(row)}
            for table in ORDER
            for row in db.execute(f"SELECT * FROM {table} ORDER BY rowid")
        ),
    )


def read_mirror(path: Path) -> Iterator[tuple[str, list[Any]]]:
    """(table, row) of every line; raises `RegistryError` for a line that is none."""
    mirror = mirror_of(path)
    try:
        lines = mirror.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RegistryError(
            f"the copy of the rows cannot be read: {error}", where=str(mirror),
            fix="put back a backup of the registry, or choose another with --registry",
        ) from None  # fmt: skip
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            found = json.loads(line)
            table, row = found["table"], found["row"]
        except (ValueError, KeyError, TypeError, RecursionError):
            table, row = "", []
        if table not in ORDER or not isinstance(row, list):
            raise RegistryError(
                "the line is no row of a registry", where=f"{mirror}:{number}",
                fix="put back a backup of the registry, or choose another with --registry",
            )  # fmt: skip
        yield table, row
