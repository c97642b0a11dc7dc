"""Verifies promoted files by hashing every byte again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from strop.errors import MissingEvidenceError
from strop.registry.objects import manifest_of
from strop.registry.records import Entry, Manifest, content_id
from strop.registry.store import Registry


@dataclass(frozen=True, slots=True)
class VerifiedEntry:
    """What was verified for one entry, and its problems.

    `VerifiedEntry("3f9a12c4d5e6", names=("algebra",), objects=7, folder="/runs/dpo/final",
    problems=("/runs/dpo/final/model.safetensors changed",))`; `names` are those for which it is
    current or that can be rolled back to it, `objects` the stored files that were hashed, `folder`
    the model folder that was hashed, if any.
    """

    entry: str
    names: tuple[str, ...]
    objects: int
    folder: str | None
    problems: tuple[str, ...]


def verify(registry: Registry, which: str | None = None) -> list[VerifiedEntry]:
    """Hash one entry again, or all of them.

    Stored files: all of a promoted entry, the remaining ones of any other. Model folder: that of a
    promoted entry if it still exists and no later promotion came from it; an imported entry has
    none.
    """
    entries = [registry.entry(which)] if which else registry.entries()
    stacks = registry.stacks()
    owners = _owners(registry)
    checked = []
    for entry in entries:
        names = tuple(name for name, stack in stacks.items() if entry.id in stack)
        owns = entry.id in owners.get(entry.path, set()) and bool(names)
        checked.append(_check(registry, entry, names, owns))
    return checked


def expect_unchanged(registry: Registry, checked: Sequence[VerifiedEntry]) -> None:
    """Raise `MissingEvidenceError` that names every problem."""
    bad = [found for found in checked if found.problems]
    if not bad:
        return
    said = [f"\n  {found.entry}: {problem}" for found in bad for problem in found.problems]
    raise MissingEvidenceError(
        f"{len(bad)} of {len(checked)} entries are not what was promoted:{''.join(said)}",
        where=str(registry.path),
        fix="restore a folder from the store with `strop registry checkout`, a damaged object "
        "with `strop registry import` of an archive",
    )


def _check(registry: Registry, entry: Entry, names: tuple[str, ...], owns: bool) -> VerifiedEntry:
    problems = []
    if content_id(entry.weights, entry.lineage, entry.verdict, entry.manifest) != entry.id:
        problems.append("the entry itself was changed in the registry file")
    objects = 0
    for name, file in entry.manifest.items():
        stored = registry.objects.path(file["sha256"])
        objects += stored.is_file()
        if not stored.is_file() and names:
            problems.append(f"{name} is missing in the store ({stored})")
        elif stored.is_file() and not registry.objects.is_whole(file["sha256"]):
            problems.append(f"{name} is damaged in the store ({stored})")
    folder = Path(entry.path)
    looked = owns and entry.origin is None and bool(entry.manifest) and folder.is_dir()
    if looked:
        problems += [f"{folder / name} {how}" for name, how in changes(entry.manifest, folder)]
    return VerifiedEntry(entry.id, names, objects, entry.path if looked else None, tuple(problems))


def changes(manifest: Manifest, folder: Path) -> list[tuple[str, str]]:
    """Files that changed, went or came since; a text (`*.md`) or a hidden file may come."""
    now = manifest_of(folder)
    found = []
    for name in sorted({*manifest, *now}):
        if name not in now:
            found.append((name, "is gone"))
        elif name not in manifest and not (name.endswith(".md") or name.startswith(".")):
            found.append((name, "is new"))
        elif name in manifest and now[name] != manifest[name]:
            found.append((name, "changed"))
    return found


def _owners(registry: Registry) -> dict[str, set[str]]:
    """Which entries a folder is held to: the last one promoted from it, and all current ones."""
    paths = {entry.id: entry.path for entry in registry.entries()}
    last: dict[str, str] = {}
    for event in registry.events():
        if event.action == "promote":
            last[paths[event.entry]] = event.entry
    owners = {path: {entry} for path, entry in last.items()}
    for stack in registry.stacks().values():
        owners[paths[stack[-1]]].add(stack[-1])
    return owners
