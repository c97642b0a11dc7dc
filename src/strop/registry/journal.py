"""Converts rows of the registry's tables to records and back; replays a name's events."""

from __future__ import annotations

import getpass
import json
import os
import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from strop.registry.records import Action, Entry, Event, GateAttempt

LOOKS = """SELECT *, ROW_NUMBER() OVER (PARTITION BY evidence ORDER BY number)
FROM attempts ORDER BY number"""


def entries_in(db: sqlite3.Connection) -> list[Entry]:
    """All entries, the oldest first."""
    return [_entry(row) for row in db.execute("SELECT * FROM entries ORDER BY created, rowid")]


def insert(db: sqlite3.Connection, entry: Entry) -> None:
    """Add an entry; an existing one stays as it is."""
    parts = (entry.lineage, entry.verdict, entry.manifest)
    lineage, verdict, manifest = (json.dumps(part) for part in parts)
    db.execute(
        "INSERT OR IGNORE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (entry.id, entry.weights, entry.path, lineage, verdict, manifest, entry.who,
         entry.created, json.dumps(entry.origin)),
    )  # fmt: skip


def events_in(db: sqlite3.Connection, name: str | None = None) -> list[Event]:
    """All events in order, of one name or of all."""
    rows = db.execute("SELECT * FROM events ORDER BY number").fetchall()
    return [Event(*row) for row in rows if name is None or row[1] == name]


def record(
    db: sqlite3.Connection, name: str, action: Action, entry: str, reason: str | None
) -> None:
    db.execute(
        "INSERT INTO events (name, action, entry, reason, who, at) VALUES (?, ?, ?, ?, ?, ?)",
        (name, action, entry, reason, who(), now()),
    )


def push(db: sqlite3.Connection, name: str, entry: str, reason: str | None) -> None:
    """Promote an entry unless it is current already, because a rollback would then change
    nothing."""
    if stack_of(events_in(db, name))[-1:] != [entry]:
        record(db, name, "promote", entry, reason)


def stack_of(events: Iterable[Event]) -> list[str]:
    """A name's entry ids as a stack: a promotion pushes, a rollback pops; the last one is
    current."""
    stack: list[str] = []
    for event in events:
        if event.action == "promote":
            stack.append(event.entry)
        elif stack:
            stack.pop()
        else:
            raise sqlite3.DatabaseError(f"malformed: event {event.number} takes back nothing")
    return stack


def stacks_in(db: sqlite3.Connection) -> dict[str, list[str]]:
    """Every name with its stack."""
    events = events_in(db)
    names = sorted({event.name for event in events})
    return {name: stack_of(event for event in events if event.name == name) for name in names}


def attempts_in(db: sqlite3.Connection) -> list[GateAttempt]:
    """All attempts in order, each with the number of attempts on its evidence so far."""
    return [_attempt(row) for row in db.execute(LOOKS)]


def who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"uid {os.getuid()}"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _attempt(row: tuple[Any, ...]) -> GateAttempt:
    number, evidence, suite, sealed, *rest = row
    return GateAttempt(number, evidence, suite, bool(sealed), *rest)


def _entry(row: tuple[Any, ...]) -> Entry:
    number, weights, path, lineage, verdict, manifest, by, created, origin = row
    return Entry(
        number,
        weights,
        path,
        _plain(lineage, number),
        _plain(verdict, number),
        _plain(manifest, number),
        by,
        created,
        _plain(origin, number),
    )


def _plain(text: Any, entry: str) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        raise sqlite3.DatabaseError(f"malformed: entry {entry} is no JSON") from None
