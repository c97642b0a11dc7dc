"""Where the weights of a name stand: a folder, or an entry of the registry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from strop.errors import RegistryError, UsageError
from strop.model.load import expect_weights, weights_hash
from strop.registry.records import Entry
from strop.registry.store import Registry
from strop.registry.transfer.archive import checkout

FINAL = ("final", "best")
"""Folders that a run's folder names better than they do."""


@dataclass(frozen=True, slots=True)
class Place:
    """`Place("runs/dpo/final", weights="3f2a9c1b5d6e7f80", entry=None)`; `entry` is the id of the
    registry's entry that the folder was checked out from."""

    folder: str
    weights: str
    entry: str | None = None


class Places:
    """Finds folders; entries are checked out beside the registry, once, and verified."""

    def __init__(self, registry: str | None) -> None:
        self._registry = None if registry is None else Registry(registry)

    def of_path(self, path: str) -> Place:
        return Place(path, weights_hash(path))

    def of_entry(self, which: str) -> Place:
        """The current entry of a name, or an entry by its id."""
        entry = self._store(which).entry(which)
        if not entry.manifest:  # a hub name, which has no files here
            return Place(entry.path, entry.weights, entry.id)
        folder = self._folder(entry)
        if not folder.is_dir():
            checkout(self._store(which), entry.id, folder)
        if weights_hash(folder) != entry.weights:
            raise RegistryError("the files were changed since they were promoted",
                                where=str(folder), fix="delete the folder")  # fmt: skip
        return Place(str(folder), entry.weights, entry.id)

    def expect(self, given: str) -> None:
        """Raise `UsageError` unless a folder with weights or an entry is called so; nothing is
        checked out."""
        if Path(given).is_dir():
            expect_weights(given)
        else:
            self._store(given).entry(given)

    def of_either(self, given: str) -> Place:
        """A folder, else an entry."""
        return self.of_path(given) if Path(given).is_dir() else self.of_entry(given)

    def current(self, name: str) -> str | None:
        """The id of the entry that a name stands for now."""
        found = self._store(name).current(name)
        return None if found is None else found.id

    def _folder(self, entry: Entry) -> Path:
        home = self._store(entry.id).path
        return home.parent / f"{home.stem}.served" / entry.id

    def _store(self, wanted: str) -> Registry:
        """The registry, which has what is wanted if anything has."""
        if Path(wanted).is_file():
            raise UsageError("this is a file", where=wanted, fix="give the folder that it is in")
        if self._registry is None:
            raise UsageError("no folder is called so, and no registry is given", where=wanted,
                             fix="give a model folder, or --registry FILE")  # fmt: skip
        return self._registry


def name_of(path: str) -> str:
    """What a folder is called by those who ask: `name_of("runs/dpo/final") == "dpo"`."""
    folder = Path(path).resolve()
    return folder.parent.name if folder.name in FINAL else folder.name
