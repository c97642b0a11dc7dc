"""Which answer has which id: an index beside the log, made of the log alone."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.files import SHORT, sha256_hex

SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (id TEXT PRIMARY KEY, file TEXT, caller TEXT, session TEXT,
                                    trial TEXT, arm TEXT, choices INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS said (id TEXT, digest TEXT, file TEXT, PRIMARY KEY (id, digest))
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (name TEXT PRIMARY KEY, read INTEGER);
"""


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
    """Holds what the files of a log say up to where they were read. Raises nothing of its own: a
    damaged index is deleted and made again. One thread writes, any may ask."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "index.db"
        self._folder = folder
        try:
            self._db = self._opened()
        except sqlite3.DatabaseError:
            self._path.unlink()
            self._db = self._opened()

    def _opened(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")  # the log is what has to last
        db.executescript(SCHEMA)
        return db

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
        self._db.execute("BEGIN IMMEDIATE")
        for table, column in (("answers", "file"), ("said", "file"), ("files", "name")):
            self._db.execute(f"DELETE FROM {table} WHERE {column} = ?", (name,))
        self._db.execute("COMMIT")

    def _read(self, name: str, start: int) -> None:
        with (self._folder / name).open("rb") as stream:
            stream.seek(start)
            rows = [json.loads(line) for line in stream]
            self.add(name, rows, stream.tell())

    def add(self, name: str, rows: Iterable[Mapping[str, Any]], read: int) -> None:
        """Note rows of a file that was written up to the byte `read`."""
        self._db.execute("BEGIN IMMEDIATE")
        for row in rows:
            if "messages" in row:
                self._db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)",
                                 _values(known_of(row), name))  # fmt: skip
            elif "digest" in row:
                self._db.execute("INSERT OR REPLACE INTO said VALUES (?, ?, ?)",
                                 (row["id"], row["digest"], name))  # fmt: skip
        self._db.execute("INSERT OR REPLACE INTO files VALUES (?, ?)", (name, read))
        self._db.execute("COMMIT")


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
