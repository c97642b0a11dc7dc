"""An append-only SQLite registry: entries by content, promotions as events."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from strop.errors import RegistryError

SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    id TEXT PRIMARY KEY, weights TEXT NOT NULL, path TEXT NOT NULL, lineage TEXT NOT NULL,
    verdict TEXT, created TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, action TEXT NOT NULL,
    entry TEXT NOT NULL REFERENCES entries(id), reason TEXT, who TEXT NOT NULL, at TEXT NOT NULL
);
CREATE TRIGGER IF NOT EXISTS entries_stay BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'the registry is append-only'); END;
CREATE TRIGGER IF NOT EXISTS entries_fixed BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'the registry is append-only'); END;
CREATE TRIGGER IF NOT EXISTS events_stay BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'the registry is append-only'); END;
CREATE TRIGGER IF NOT EXISTS events_fixed BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'the registry is append-only'); END;
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A model with its history.

    `Entry(id="3f9a12c4d5e6", weights="9b1c...", path="runs/grpo/final", lineage={...},
    verdict={"name": "pass", ...}, created="2026-11-21T08:00:00+00:00")`; `id` is a hash of weights
    and lineage.
    """

    id: str
    weights: str
    path: str
    lineage: Mapping[str, Any]
    verdict: Mapping[str, Any] | None
    created: str


@dataclass(frozen=True, slots=True)
class Event:
    """`Event(3, "algebra", "promote", "3f9a12c4d5e6", None, "ana", "2026-11-21T08:00:00Z")`."""

    number: int
    name: str
    action: str
    entry: str
    reason: str | None
    who: str
    at: str


class Registry:
    """The store behind one file; opened for every call, so that several processes can share it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def promote(
        self,
        name: str,
        *,
        weights: str,
        path: str,
        lineage: Mapping[str, Any],
        verdict: Mapping[str, Any] | None,
        override: str | None = None,
    ) -> Entry:
        """Make these weights the current ones of `name`.

        Raises `RegistryError` without a passing verdict for exactly these weights, unless an
        `override` reason is given, which is recorded.
        """
        if override is None:
            _expect_proof(weights, verdict)
        elif not override.strip():
            raise RegistryError("an override needs a reason", fix="pass --override 'why'")
        identity = json.dumps([weights, lineage], sort_keys=True)
        entry = Entry(
            id=hashlib.sha256(identity.encode()).hexdigest()[:12],
            weights=weights,
            path=path,
            lineage=lineage,
            verdict=verdict,
            created=_now(),
        )
        with self._open(create=True) as db:
            db.execute(
                "INSERT OR IGNORE INTO entries VALUES (?, ?, ?, ?, ?, ?)",
                (entry.id, weights, path, json.dumps(lineage), json.dumps(verdict), entry.created),
            )
            _record(db, name, "promote", entry.id, override)
        return self.entry(entry.id)

    def rollback(self, name: str, reason: str | None = None) -> Entry:
        """Make the entry that was current before the current one current again."""
        history = self._stack(name)
        if len(history) < 2:
            raise RegistryError(
                f"{name!r} has no earlier promotion to go back to", where=str(self.path)
            )
        with self._open() as db:
            _record(db, name, "rollback", history[-2], reason)
        return self.entry(history[-2])

    def current(self, name: str) -> Entry | None:
        """The entry that `name` stands for now."""
        stack = self._stack(name)
        return self.entry(stack[-1]) if stack else None

    def entry(self, which: str) -> Entry:
        """An entry by id (or the start of one), or the current one of a name."""
        with self._open() as db:
            rows = db.execute(
                "SELECT * FROM entries WHERE id LIKE ? || '%'", (which.replace("%", ""),)
            ).fetchall()
        if len(rows) == 1:
            return _entry(rows[0])
        if which in self.names():
            return self.entry(self._stack(which)[-1])
        found = "several entries begin" if rows else "no entry or name begins"
        raise RegistryError(f"{found} with {which!r}", where=str(self.path),
                            fix="see `strop registry list`")  # fmt: skip

    def entries(self) -> list[Entry]:
        with self._open() as db:
            return [_entry(row) for row in db.execute("SELECT * FROM entries ORDER BY created")]

    def events(self, name: str | None = None) -> list[Event]:
        """All events in order, of one name or of all."""
        with self._open() as db:
            rows = db.execute("SELECT * FROM events ORDER BY number").fetchall()
        return [Event(*row) for row in rows if name is None or row[1] == name]

    def names(self) -> list[str]:
        return sorted({event.name for event in self.events()})

    def _stack(self, name: str) -> list[str]:
        """Entry ids as a stack: a promotion pushes, a rollback pops; the last one is current."""
        stack: list[str] = []
        for event in self.events(name):
            if event.action == "promote":
                stack.append(event.entry)
            else:
                stack.pop()
        return stack

    @contextmanager
    def _open(self, *, create: bool = False) -> Iterator[sqlite3.Connection]:
        if not create and not self.path.exists():
            raise RegistryError("no registry here yet", where=str(self.path),
                                fix="promote a model first, or check --registry")  # fmt: skip
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=30)) as db, db:
                db.execute("PRAGMA journal_mode=WAL")
                if create:
                    db.executescript(SCHEMA)
                yield db
        except sqlite3.DatabaseError as error:
            raise RegistryError(
                f"the registry cannot be used: {error}",
                where=str(self.path),
                fix="check the file and who else has it open",
            ) from None


def _expect_proof(weights: str, verdict: Mapping[str, Any] | None) -> None:
    if verdict is None:
        raise RegistryError(
            "a promotion needs a verdict",
            fix="run `strop gate` first, or pass --override with the reason",
        )
    if verdict.get("name") != "pass":
        raise RegistryError(
            f"the gate said {verdict.get('name')}: {verdict.get('sentence')}",
            fix="promote a candidate that passes, or pass --override with the reason",
        )
    if (verdict.get("candidate") or {}).get("sha256") != weights:
        raise RegistryError(
            "the verdict is for other weights than these",
            fix="run eval and gate on exactly this folder",
        )


def _record(db: sqlite3.Connection, name: str, action: str, entry: str, reason: str | None) -> None:
    db.execute(
        "INSERT INTO events (name, action, entry, reason, who, at) VALUES (?, ?, ?, ?, ?, ?)",
        (name, action, entry, reason, _who(), _now()),
    )


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"uid {os.getuid()}"


def _entry(row: tuple[Any, ...]) -> Entry:
    number, weights, path, lineage, verdict, created = row
    return Entry(number, weights, path, json.loads(lineage), json.loads(verdict), created)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
