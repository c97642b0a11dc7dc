"""Garbage collection: stored files that no promotion needs any more."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from strop.errors import RegistryError
from strop.registry.database import reading, writing
from strop.registry.journal import entries_in, stacks_in
from strop.registry.records import Entry
from strop.registry.store import Registry

SQLITE = b"SQLite format 3\0"
"""The first bytes of an SQLite file."""


@dataclass(frozen=True, slots=True)
class Garbage:
    """`Garbage(objects=("9f...", ...), size=52428800, entries=("77aa...",))`.

    `objects` by sha256, `size` in bytes; `entries` lose stored files, because no name refers to
    them and no rollback can reach them.
    """

    objects: tuple[str, ...]
    size: int
    entries: tuple[str, ...]


def collect(registry: Registry, *, dry_run: bool = False) -> Garbage:
    """Remove the stored files that no name's stack needs; with `dry_run` only report them.

    A promotion at the same time waits for the transaction. Raises `RegistryError` if another
    database shares the store, because its promotions are unknown here.
    """
    _expect_alone(registry)
    if dry_run:
        with reading(registry.path) as db:
            return _garbage(registry, entries_in(db), stacks_in(db))
    with reading(registry.path):
        pass  # where there is no registry, none is made
    with writing(registry.path) as db:
        found = _garbage(registry, entries_in(db), stacks_in(db))
        for sha256 in found.objects:
            registry.objects.remove(sha256)
        for inbox in registry.objects.abandoned():
            shutil.rmtree(inbox)
    return found


def _expect_alone(registry: Registry) -> None:
    own = registry.path
    others = [path for path in own.parent.glob("*") if path.stem == own.stem and path != own]
    for other in others:
        if other.is_file() and _beginning(other) == SQLITE:
            raise RegistryError(
                f"{other.name} has the same stored files",
                where=str(own),
                fix=f"move {other.name} away, with a copy of {registry.objects.folder.name}",
            )


def _beginning(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(len(SQLITE))


def _garbage(
    registry: Registry, entries: Iterable[Entry], stacks: Mapping[str, Sequence[str]]
) -> Garbage:
    standing = {entry for stack in stacks.values() for entry in stack}
    held = {entry.id: {f["sha256"] for f in entry.manifest.values()} for entry in entries}
    needed = {sha256 for entry in standing for sha256 in held[entry]}
    sizes = registry.objects.sizes()
    gone = [sha256 for sha256 in sizes if sha256 not in needed]
    losing = [entry for entry, files in held.items() if files & set(gone)]
    return Garbage(tuple(gone), sum(sizes[sha256] for sha256 in gone), tuple(losing))
