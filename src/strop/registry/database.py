"""The SQLite file of a registry: tables, transactions, error messages.

Beside it is a copy of its rows as readable lines, from which a damaged file can be rebuilt.
"""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from strop.errors import RegistryError
from strop.files import write_rows

APPLICATION = 0x73747270
"""SQLite's `application_id` of a registry: "strp"."""

VERSION = 1
"""SQLite's `user_version`: the schema below."""

BUSY_SECONDS = 30.0
"""Seconds that a call waits for another process to finish."""

TABLES = (
    """CREATE TABLE entries (
    id TEXT PRIMARY KEY, weights TEXT NOT NULL, path TEXT NOT NULL, lineage TEXT NOT NULL,
    verdict TEXT NOT NULL, manifest TEXT NOT NULL, who TEXT NOT NULL, created TEXT NOT NULL,
    origin TEXT NOT NULL)""",
    """CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, action TEXT NOT NULL,
    entry TEXT NOT NULL REFERENCES entries(id), reason TEXT, who TEXT NOT NULL,
    at TEXT NOT NULL)""",
    """CREATE TABLE attempts (
    number INTEGER PRIMARY KEY AUTOINCREMENT, evidence TEXT NOT NULL, suite TEXT NOT NULL,
    sealed INTEGER NOT NULL, base TEXT NOT NULL, candidate TEXT NOT NULL, verdict TEXT NOT NULL,
    who TEXT NOT NULL, at TEXT NOT NULL)""",
)
FIXED = """CREATE TRIGGER {table}_{verb} BEFORE {verb} ON {table}
    BEGIN SELECT RAISE(ABORT, 'the registry is append-only'); END"""

ORDER = ("entries", "events", "attempts")
"""Tables in an order in which each comes after those it refers to."""


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """One consistent view of a registry that exists; raises `RegistryError` for anything else."""
    if not path.is_file():
        raise RegistryError("no registry here yet", where=str(path),
                            fix="promote a model first, or check --registry")  # fmt: skip
    with connected(path) as db:
        _expect_ours(db, path)
        db.execute("BEGIN")
        yield db


@contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """One exclusive write transaction; creates the registry if there is none.

    An exception inside rolls everything back.
    """
    if not path.exists():
        create(path)
    with connected(path) as db:
        _expect_ours(db, path)
        db.execute("BEGIN IMMEDIATE")
        yield db
        write_mirror(db, path)
        db.execute("COMMIT")


@contextmanager
def connected(path: Path) -> Iterator[sqlite3.Connection]:
    """An open connection in autocommit; SQLite's errors become `RegistryError`."""
    try:
        # explicit transactions: the driver would begin one only at the first INSERT
        opened = sqlite3.connect(
            _address(path), uri=True, timeout=BUSY_SECONDS, isolation_level=None
        )
        with closing(opened) as db:
            yield db
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the driver decodes a damaged text itself
        raise _unusable(path, error) from None


def _address(path: Path) -> str:
    address = path.absolute().as_uri()
    if os.access(path.parent, os.W_OK) or path.with_name(f"{path.name}-wal").exists():
        return address
    return f"{address}?immutable=1"  # WAL wants to write beside the file even to read


def _unusable(path: Path, error: Exception) -> RegistryError:
    said = str(error)
    return RegistryError(
        f"the registry cannot be used: {said}", where=str(path), fix=_advice(said.lower(), path)
    )


def _advice(said: str, path: Path) -> str:
    if "locked" in said:
        return "another process has been writing to it; wait for that one, or end it"
    if "readonly" in said or "denied" in said:
        return "ask who owns the file, or copy it and its objects to a folder of your own"
    if any(word in said for word in ("not a database", "malformed", "decode")):
        if mirror_of(path).exists():
            return f"strop registry rebuild --registry {path}"
        return "put back a copy of the file, or choose another with --registry"
    return "check the path, its permissions and the room left on the disk"


def create(path: Path) -> None:
    """Make an empty registry in a temporary folder and link it into place, so that no process opens
    a half-made one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
            made = Path(folder) / path.name
            with connected(made) as db:
                db.execute("PRAGMA journal_mode = WAL")
                _lay_out(db)
            os.link(made, path)
    except OSError as error:
        if not path.exists():  # else another process made it first
            raise _unusable(path, error) from None


def _lay_out(db: sqlite3.Connection) -> None:
    for table in TABLES:
        db.execute(table)
    for table in ("entries", "events", "attempts"):
        for verb in ("UPDATE", "DELETE"):
            db.execute(FIXED.format(table=table, verb=verb))
    db.execute(f"PRAGMA application_id = {APPLICATION}")
    db.execute(f"PRAGMA user_version = {VERSION}")


def _expect_ours(db: sqlite3.Connection, path: Path) -> None:
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if (application, version) != (APPLICATION, VERSION):
        what = f"schema {version}" if application == APPLICATION else "another kind of database"
        raise RegistryError(
            f"the file is no registry of this version of strop: it holds {what}",
            where=str(path),
            fix="choose another file with --registry",
        )


def mirror_of(path: Path) -> Path:
    """`registry.db` -> `registry.db.rows.jsonl`."""
    return path.with_name(f"{path.name}.rows.jsonl")


def write_mirror(db: sqlite3.Connection, path: Path) -> None:
    """Write the copy of all rows, whole or not at all; called inside the transaction, so that
    writers take turns."""
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
    """(table, row) of every line; raises `RegistryError` for an invalid line."""
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
