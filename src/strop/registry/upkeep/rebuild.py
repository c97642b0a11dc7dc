"""Rebuilds a damaged registry from the copy of its rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from strop.errors import RegistryError
from strop.files import move, place
from strop.registry.database import connected, create, mirror_of, read_mirror, reading
from strop.registry.journal import attempts_in, entries_in, events_in, stacks_in


def rebuild(path: Path, *, dry_run: bool = False) -> Counter[str]:
    """Replace a damaged registry; returns the number of rows of each table.

    The damaged file is kept beside it as `damaged-<n>-<name>`. Raises `RegistryError` if the
    registry can be read, or the copy of its rows is incomplete.
    """
    if not _is_damaged(path):
        raise RegistryError(
            "the registry can be read: there is nothing to make again", where=str(path),
            fix="see `strop registry list`",
        )  # fmt: skip
    rows = list(read_mirror(path))
    if dry_run:
        return Counter(table for table, _ in rows)
    made = path.with_name(f".{path.name}.rebuilt")
    made.unlink(missing_ok=True)
    create(made)
    with connected(made) as db:
        db.execute("BEGIN IMMEDIATE")
        for table, row in rows:
            db.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for ending in ("", "-wal", "-shm"):
        file = path.with_name(path.name + ending)
        if file.exists():
            move(file, _free(path, ending))
    place(made, path)
    for ending in ("-wal", "-shm"):
        made.with_name(made.name + ending).unlink(missing_ok=True)
    return Counter(table for table, _ in rows)


def _is_damaged(path: Path) -> bool:
    if not path.exists() and mirror_of(path).exists():
        return True
    try:
        with reading(path) as db:
            for read in (entries_in, events_in, attempts_in, stacks_in):
                read(db)
    except RegistryError:
        return path.exists()
    return False


def _free(path: Path, ending: str) -> Path:
    number = 1
    while (place := path.with_name(f"damaged-{number}-{path.name}{ending}")).exists():
        number += 1
    return place
