"""Exports an entry from the store: as a folder, or as one plain tar with a table of contents.

entry.json    the entry and what happened to it, first
README.md     its model card
model/<name>  the files of the model
SHA256SUMS    of all of these, last: `sha256sum -c` reads it
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from strop.errors import RegistryError
from strop.files import place, sha256_hex
from strop.registry.card import card
from strop.registry.records import Entry
from strop.registry.store import Registry

LABEL, README, MODEL, SUMS = "entry.json", "README.md", "model/", "SHA256SUMS"


@dataclass(frozen=True, slots=True)
class Label:
    """`entry.json`: `Label("strop registry entry", 1, entry, events=({"name": "algebra", ...},))`;
    `events` are those of the entry, wherever it has been."""

    format: Literal["strop registry entry"]
    version: Literal[1]
    entry: Entry
    events: tuple[Mapping[str, Any], ...]


def export(registry: Registry, which: str, path: Path) -> Entry:
    """Write an entry and its files as one archive; the same entry gives the same bytes.

    Raises `RegistryError` if the store lacks one of its files or `path` exists.
    """
    entry = expect_exportable(registry, which, path)
    label = json.dumps(asdict(_label(registry, entry)), indent=1, sort_keys=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("xb") as stream:
            _write(registry, entry, label, stream)
        place(temporary, path)
    except OSError as error:
        raise RegistryError(f"the archive cannot be written: {error}", where=str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)
    return entry


def expect_exportable(registry: Registry, which: str, path: Path) -> Entry:
    """The entry to export; raises if its export is not possible."""
    entry = registry.entry(which)
    if path.exists():
        raise RegistryError("the file exists already", where=str(path), fix="choose another name")
    expect_stored(registry, entry)
    return entry


def expect_stored(registry: Registry, entry: Entry) -> None:
    """Raise `RegistryError` unless the store holds all files of the entry."""
    if not entry.manifest:
        raise RegistryError(f"{entry.id} has no files: {entry.path} was no folder",
                            where=str(registry.path))  # fmt: skip
    if missing := registry.objects.missing(entry.manifest):
        raise RegistryError(
            f"the store no longer holds {', '.join(missing)} of {entry.id}",
            where=str(registry.path),
            fix="promote the model folder again, or import an archive of the entry",
        )


def _label(registry: Registry, entry: Entry) -> Label:
    before = (entry.origin or {}).get("events", [])
    here = [asdict(event) for event in registry.events() if event.entry == entry.id]
    for event in here:
        del event["number"], event["entry"]
    return Label("strop registry entry", 1, replace(entry, origin=None), (*before, *here))


def _write(registry: Registry, entry: Entry, label: str, stream: io.BufferedWriter) -> None:
    hashes = {}
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, text in ((LABEL, label.encode()), (README, card(entry).encode())):
            _add(archive, name, text)
            hashes[name] = sha256_hex(text)
        for name, file in sorted(entry.manifest.items()):
            stored = registry.objects.path(file["sha256"])
            if not registry.objects.is_whole(file["sha256"]):
                raise RegistryError(f"{name} is damaged in the store", where=str(stored),
                                    fix="promote the model folder again")  # fmt: skip
            with stored.open("rb") as content:
                archive.addfile(_header(MODEL + name, file["size"]), content)
            hashes[MODEL + name] = file["sha256"]
        _add(archive, SUMS, sums(hashes))


def sums(hashes: Mapping[str, str]) -> bytes:
    """What `sha256sum` would print for these files."""
    return "".join(f"{sha256}  {name}\n" for name, sha256 in hashes.items()).encode()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    archive.addfile(_header(name, len(content)), io.BytesIO(content))


def _header(name: str, size: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, 0o644
    return header


def checkout(registry: Registry, which: str, folder: Path, *, dry_run: bool = False) -> Entry:
    """Write the files of an entry into a new folder, each checked by its hash; complete or not at
    all.

    Raises `RegistryError` for a folder that exists and for a file that is damaged or missing.
    """
    entry = registry.entry(which)
    if folder.exists():
        raise RegistryError("the folder exists already", where=str(folder),
                            fix="move it away, or choose another name")  # fmt: skip
    expect_stored(registry, entry)
    if dry_run:
        return entry
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        registry.objects.restore(entry.manifest, temporary)
        place(temporary, folder)
    except OSError as error:
        raise RegistryError(f"the folder cannot be written: {error}", where=str(folder)) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return entry
