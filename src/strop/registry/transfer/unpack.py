"""Imports an untrusted archive into the registry after checking every byte."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO

from pydantic import TypeAdapter, ValidationError

from strop.errors import RegistryError
from strop.files import copy_hashed, sha256_hex
from strop.registry.card import card
from strop.registry.diff import facts
from strop.registry.journal import now, who
from strop.registry.objects import expect_weights
from strop.registry.records import Entry, Manifest, content_id
from strop.registry.store import Registry, expect_proof
from strop.registry.transfer.archive import LABEL, MODEL, README, SUMS, Label, sums

LABELS = TypeAdapter(Label)
TEXT_LIMIT = 64 << 20
"""Largest entry.json or SHA256SUMS that is read into memory; a longer one is refused."""


@dataclass(frozen=True, slots=True)
class Imported:
    """`Imported(entry, new=True)`; `new` is False if the registry already had the entry with all
    its files."""

    entry: Entry
    new: bool


def import_archive(
    registry: Registry, path: Path, *, name: str | None = None, dry_run: bool = False
) -> Imported:
    """Check every byte of an archive, then import its entry; with `name`, promote it.

    Raises `RegistryError` for anything that `export` would not write, before anything is visible in
    the registry; and for a `name` without the proof that `promote` requires.
    """
    with _opened(path) as archive:
        written = _text(archive, archive.next(), LABEL, path)
        label = _label(written, path)
        entry = label.entry
        if name is not None:
            expect_proof(entry.weights, entry.verdict)
        known = _is_known(registry, entry)
        read = _Reading(archive, path, {LABEL: sha256_hex(written)})
        if dry_run or known:
            read.rest(entry.manifest, None)
        else:
            with registry.objects.incoming() as inbox:
                read.rest(entry.manifest, inbox)
                for copy in sorted(inbox.iterdir()):
                    registry.objects.place(copy)
    if dry_run:
        return Imported(entry, not known)
    origin = {"events": [dict(event) for event in label.events], "who": who(), "at": now()}
    return Imported(registry.adopt(replace(entry, origin=origin), name), not known)


def _is_known(registry: Registry, entry: Entry) -> bool:
    if not registry.path.exists():
        return False
    here = any(entry.id == other.id for other in registry.entries())
    return here and all(registry.objects.is_whole(f["sha256"]) for f in entry.manifest.values())


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    if not path.is_file():
        raise RegistryError("no such archive", where=str(path))
    try:
        with tarfile.open(path, mode="r:") as archive:
            yield archive
    except (tarfile.TarError, EOFError, UnicodeDecodeError) as error:
        raise _refused(path, f"it is damaged, cut short or no tar ({error})") from None


def _label(written: bytes, path: Path) -> Label:
    try:
        label = LABELS.validate_json(written)
    except ValidationError as error:
        found = error.errors()[0]
        where = ".".join(map(str, found["loc"]))
        raise _refused(path, f"{LABEL} is not ours: {where}: {found['msg']}") from None
    _expect_sound(label.entry, path)
    return label


def _expect_sound(entry: Entry, path: Path) -> None:
    """Raise unless the manifest's names stay in the folder, its weights hash matches, and the id
    matches the content."""
    for name, file in entry.manifest.items():
        if not is_confined(name):
            raise _refused(path, f"it names a file outside of the model: {name!r}")
        size, sha256 = file.get("size"), str(file.get("sha256"))
        if not isinstance(size, int) or not re.fullmatch("[0-9a-f]{64}", sha256):
            raise _refused(path, f"it gives no size or no sha256 for {name!r}")
    if content_id(entry.weights, entry.lineage, entry.verdict, entry.manifest) != entry.id:
        raise _refused(path, f"its content does not hash to the id {entry.id!r}")
    expect_weights(entry.manifest, entry.weights, str(path))
    try:
        card(entry), facts(entry)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = f"its lineage or verdict is not as a run and a gate write them ({error!r})"
        raise _refused(path, why) from None


def is_confined(name: str) -> bool:
    """Whether a relative name stays in its folder, on any system."""
    parts = PurePosixPath(name).parts
    clean = bool(parts) and "/".join(parts) == name and not name.startswith("/")
    return clean and ".." not in parts and not set(name) & set("\\:\0")


@dataclass(frozen=True, slots=True)
class _Reading:
    """Reads the members of an archive in order; `hashes` are those of the members read so far, by
    name."""

    archive: tarfile.TarFile
    path: Path
    hashes: dict[str, str]

    def rest(self, manifest: Manifest, inbox: Path | None) -> None:
        """Check every member against the manifest; with an inbox, copy them there by sha256."""
        awaited = {README: {}, **{MODEL + name: file for name, file in manifest.items()}}
        member = self.archive.next()
        while member is not None and member.name != SUMS:
            content = _content(self.archive, member, self.path)
            if member.name not in awaited:
                raise self.refused(f"it holds {member.name!r}, which its entry does not name")
            file = awaited.pop(member.name)
            if file and member.size != file["size"]:
                raise self.refused(f"{member.name} has another size than its entry says")
            sha256 = copy_hashed(content, inbox / file["sha256"] if inbox and file else None)
            if file and sha256 != file["sha256"]:
                raise self.refused(f"{member.name} is damaged: its sha256 is {sha256}")
            self.hashes[member.name] = sha256
            member = self.archive.next()
        if awaited:
            raise self.refused(f"it lacks {', '.join(sorted(awaited))}")
        if _text(self.archive, member, SUMS, self.path) != sums(self.hashes):
            raise self.refused(f"{LABEL} or {README} is damaged: {SUMS} does not fit")
        if (more := self.archive.next()) is not None:
            raise self.refused(f"it holds {more.name!r}, which its entry does not name")

    def refused(self, why: str) -> RegistryError:
        return _refused(self.path, why)


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo | None, name: str, path: Path) -> bytes:
    if member is None or member.name != name or member.size > TEXT_LIMIT:
        raise _refused(path, f"{name} is not where it should be")
    return _content(archive, member, path).read()


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> IO[bytes]:
    """The content of a plain file; links, devices, folders and sparse files are refused."""
    content = archive.extractfile(member) if member.type == tarfile.REGTYPE else None
    if content is None or member.issparse():
        raise _refused(path, f"{member.name!r} is not a plain file")
    return content


def _refused(path: Path, why: str) -> RegistryError:
    return RegistryError(
        f"the archive is not taken in: {why}",
        where=str(path),
        fix="export the entry again with `strop registry export`, and copy the file whole",
    )
