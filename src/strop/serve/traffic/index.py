"""Which answer has which id: an index beside the log, made of the log alone."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.files import SHORT, sha256_hex
from strop.serve.traffic.rows import rows_of

SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (id TEXT PRIMARY KEY, file TEXT, caller TEXT, session TEXT,
                                    trial TEXT, arm TEXT, choices INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS said (id TEXT, digest TEXT, file TEXT, PRIMARY KEY (id, digest))
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (name TEXT PRIMARY KEY, read INTEGER);
"""
COLUMNS = {
    "answers": "id, file, caller, session, trial, arm, choices",
    "said": "id, digest, file",
    "files": "name, read",
}


@dataclass(frozen=True, slots=True)
class Known:
    """An answer that was given: `Known("chatcmpl-3f2a", caller="app", session="9c1e...",
    trial="c-1", arm="canary", choices=1)`; `trial` is empty where no canary was on trial."""

    id: str
    caller: str
    session: str
    trial: str
    arm: str
    choices: int


class Index:
    """Holds what the files of a log say up to where they were read. One thread writes, any may ask.

    An index that is damaged when it is opened is deleted and made again; one that is found damaged
    later raises `sqlite3.DatabaseError`, and `remake` begins anew.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "index.db"
        self._folder = folder
        try:
            self._db = self._opened()
        except sqlite3.DatabaseError:
            self._delete()
            self._db = self._opened()

    def _opened(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")  # the log is what has to last
            if db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                raise sqlite3.DatabaseError("the index is damaged")
            db.executescript(SCHEMA)
            for table, columns in COLUMNS.items():
                db.execute(f"SELECT {columns} FROM {table} LIMIT 0")
        except sqlite3.Error:
            db.close()
            raise
        return db

    def _delete(self) -> None:
        for ending in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + ending).unlink(missing_ok=True)

    def remake(self) -> None:
        """Begin anew, with nothing read."""
        with suppress(sqlite3.Error):
            self._db.close()
        self._delete()
        self._db = self._opened()

    def close(self) -> None:
        self._db.close()

    def answer(self, id_: str) -> Known | None:
        row = self._db.execute(
            "SELECT id, caller, session, trial, arm, choices FROM answers WHERE id = ?", (id_,)
        ).fetchone()
        return None if row is None else Known(*row)

    def was_said(self, id_: str, digest: str) -> bool:
        """Whether the same was said of this answer before."""
        key = (id_, digest)
        asked = "SELECT 1 FROM said WHERE id = ? AND digest = ?"
        return self._db.execute(asked, key).fetchone() is not None

    def catch_up(self, files: Iterable[Path]) -> None:
        """Read what was appended since; forget files that are gone."""
        names = [file.name for file in files]
        known = dict(self._db.execute("SELECT name, read FROM files").fetchall())
        for gone in known.keys() - set(names):
            self.forget(gone)
        for name in names:
            self._read(name, known.get(name, 0))

    def forget(self, name: str) -> None:
        """Forget what stands in a file that is deleted."""
        with self._change() as db:
            for table, column in (("answers", "file"), ("said", "file"), ("files", "name")):
                db.execute(f"DELETE FROM {table} WHERE {column} = ?", (name,))

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """All of it, or nothing: one that was left open would refuse every later one."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    def _read(self, name: str, start: int) -> None:
        file = self._folder / name
        self.add(name, rows_of(file, start), file.stat().st_size)

    def add(self, name: str, rows: Iterable[Mapping[str, Any]], read: int) -> None:
        """Note rows of a file that was written up to the byte `read`."""
        with self._change() as db:
            for row in rows:
                if "messages" in row:
                    db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)",
                               _values(known_of(row), name))  # fmt: skip
                elif "digest" in row:
                    db.execute("INSERT OR REPLACE INTO said VALUES (?, ?, ?)",
                               (row["id"], row["digest"], name))  # fmt: skip
            db.execute("INSERT OR REPLACE INTO files VALUES (?, ?)", (name, read))


def known_of(row: Mapping[str, Any]) -> Known:
    """What is known of the answer in a row of the log."""
    choices = len(row["answers"]) if "answers" in row else 1
    return Known(row["id"], row.get("caller", ""), row.get("session", ""),
                 row.get("trial") or "", row.get("arm") or "", choices)  # fmt: skip


def _values(known: Known, name: str) -> tuple[str | int, ...]:
    return (known.id, name, known.caller, known.session, known.trial, known.arm, known.choices)


def digest_of(row: Mapping[str, Any]) -> str:
    """A hash of what a feedback says, whenever it says it."""
    said = {name: value for name, value in row.items() if name != "time"}
    return sha256_hex(json.dumps(said, sort_keys=True), SHORT)
