"""An append-only registry: entries by content hash, promotions as events, attempts of the gate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from strop.errors import RegistryError
from strop.registry.database import reading, writing
from strop.registry.journal import (
    attempts_in,
    entries_in,
    events_in,
    insert,
    now,
    push,
    record,
    stack_of,
    stacks_in,
    who,
)
from strop.registry.objects import Objects, expect_weights, manifest_of
from strop.registry.records import Entry, Event, GateAttempt, Manifest, content_id


class Registry:
    """The registry in one file. Each call opens the file anew, so that several processes can share
    it.

    `<stem>.objects` beside the file holds the files of every promoted model, by content.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.objects = Objects(self.path.parent / f"{self.path.stem}.objects")

    def prepare(
        self,
        *,
        weights: str,
        path: str,
        lineage: Mapping[str, Any],
        verdict: Mapping[str, Any] | None,
        override: str | None = None,
    ) -> Entry:
        """The entry that `promote` would make: every check, nothing written."""
        if override is None:
            expect_proof(weights, verdict)
        elif not override.strip():
            raise RegistryError("an override needs a reason", fix="pass --override 'why'")
        manifest: Manifest = {}
        if Path(path).is_dir():  # a hub name has no files here
            manifest = manifest_of(Path(path))
            expect_weights(manifest, weights, path)
        identity = content_id(weights, lineage, verdict, manifest)
        return Entry(identity, weights, path, lineage, verdict, manifest, who(), now())

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
        """Make these weights the current ones of `name`, and keep a copy of their files.

        Raises `RegistryError` without a passing verdict for exactly these weights, unless an
        `override` reason is given, which is recorded. An entry that is current already is not
        promoted again.
        """
        entry = self.prepare(
            weights=weights, path=path, lineage=lineage, verdict=verdict, override=override
        )
        if entry.manifest:
            self.objects.put(Path(path), entry.manifest)
        return self._add(entry, name, override)

    def adopt(self, entry: Entry, name: str | None) -> Entry:
        """Add an entry whose files are in the store; with `name`, promote it with the same
        proof."""
        if name is not None:
            expect_proof(entry.weights, entry.verdict)
        return self._add(entry, name, None)

    def _add(self, entry: Entry, name: str | None, reason: str | None) -> Entry:
        if name is not None and not name.strip():
            raise RegistryError("a promotion needs a name", where=str(self.path))
        with writing(self.path) as db:
            if self.objects.missing(entry.manifest):  # put before, outside of the transaction
                raise RegistryError("garbage collection took files away meanwhile",
                                    where=str(self.path), fix="run the same again")  # fmt: skip
            insert(db, entry)
            if name is not None:
                push(db, name, entry.id, reason)
        return self.entry(entry.id)

    def rollback(self, name: str, reason: str | None = None) -> Entry:
        """Make the entry that was current before the current one current again."""
        self.before(name)  # where there is no registry, none is made
        with writing(self.path) as db:
            earlier = self._earlier(stack_of(events_in(db, name)), name)
            record(db, name, "rollback", earlier, reason)
        return self.entry(earlier)

    def before(self, name: str) -> Entry:
        """The entry that a rollback of `name` goes back to."""
        return self.entry(self._earlier(self.stacks().get(name, []), name))

    def _earlier(self, stack: list[str], name: str) -> str:
        if len(stack) < 2:
            raise RegistryError(
                f"{name!r} has no earlier promotion to go back to", where=str(self.path)
            )
        return stack[-2]

    def current(self, name: str) -> Entry | None:
        """The entry that `name` stands for now."""
        stack = self.stacks().get(name)
        return self.entry(stack[-1]) if stack else None

    def entry(self, which: str) -> Entry:
        """An entry by id, the current one of a name, or an entry by the start of its id."""
        entries = {entry.id: entry for entry in self.entries()}
        stacks = self.stacks()
        if which in stacks and which not in entries:
            return entries[stacks[which][-1]]
        found = [entry for name, entry in entries.items() if which and name.startswith(which)]
        if len(found) == 1:
            return found[0]
        said = "several entries begin" if found else "no entry or name begins"
        raise RegistryError(f"{said} with {which!r}", where=str(self.path),
                            fix="see `strop registry list`")  # fmt: skip

    def entries(self) -> list[Entry]:
        """All entries, the oldest first."""
        with reading(self.path) as db:
            return entries_in(db)

    def events(self, name: str | None = None) -> list[Event]:
        """All events in order, of one name or of all."""
        with reading(self.path) as db:
            return events_in(db, name)

    def stacks(self) -> dict[str, list[str]]:
        """Every name with the ids that a rollback can reach; the last one is current."""
        with reading(self.path) as db:
            return stacks_in(db)

    def names(self) -> list[str]:
        return sorted(self.stacks())

    def record_attempt(
        self, *, evidence: str, suite: str, sealed: bool, base: str, candidate: str, verdict: str
    ) -> GateAttempt:
        """Record an attempt of the gate on this evidence; the returned attempt has their count.

        `evidence` is the hash of the measured items; `base` and `candidate` are weights hashes.
        Creates the registry if there is none.
        """
        row = (evidence, suite, sealed, base, candidate, verdict, who(), now())
        with writing(self.path) as db:
            db.execute(
                "INSERT INTO attempts (evidence, suite, sealed, base, candidate, verdict, who, at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            return attempts_in(db)[-1]

    def attempts(self, evidence: str | None = None) -> list[GateAttempt]:
        """All attempts in order, on one piece of evidence or on any."""
        with reading(self.path) as db:
            found = attempts_in(db)
        return [attempt for attempt in found if evidence in (None, attempt.evidence)]


def expect_proof(weights: str, verdict: Mapping[str, Any] | None) -> None:
    """Raise `RegistryError` unless the verdict is a pass for exactly these weights."""
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
    candidate = verdict.get("candidate")
    if not isinstance(candidate, Mapping) or candidate.get("sha256") != weights:
        raise RegistryError(
            "the verdict is for other weights than these",
            fix="run eval and gate on exactly this folder",
        )
