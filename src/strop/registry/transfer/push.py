"""Uploads an entry to the hub: its model, tokenizer and configs from the store, and its card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from strop.errors import RegistryError
from strop.hub import NAME, Repository, create, expect_token, of_a_model, repository, upload
from strop.registry.card import card, is_adapter
from strop.registry.records import Entry
from strop.registry.store import Registry
from strop.registry.transfer.archive import README, expect_stored


@dataclass(frozen=True, slots=True)
class Push:
    """What is uploaded where.

    `Push(entry, "ada/algebra", private=True, exists=False, files={"README.md": 2100, ...},
    left_out=("optimizer.safetensors",), removed=(), notes=(), onto=None)`: `files` and their bytes;
    files of the entry that no model is loaded from are left out; model files that the repository
    holds and the entry does not are `removed`; `onto` is the commit that was there.
    """

    entry: Entry
    name: str
    private: bool
    exists: bool
    files: dict[str, int]
    left_out: tuple[str, ...]
    removed: tuple[str, ...]
    notes: tuple[str, ...]
    onto: str | None


def planned(registry: Registry, which: str, name: str, *, public: bool, yes: bool) -> Push:
    """What `push` would upload, once everything is checked; writes nothing.

    Raises `RegistryError` for an entry that is not there or not whole, for a name that is no
    `org/name`, for a repository that exists (unless `yes`) or is of the other visibility; and
    `HubError` without a token.
    """
    entry = registry.entry(which)
    if not NAME.fullmatch(name):
        raise RegistryError("is no name of a hub repository", where=name,
                            fix="write org/name, e.g. ada/algebra")  # fmt: skip
    expect_stored(registry, entry)
    sent = {file: found["size"] for file, found in entry.manifest.items() if of_a_model(file)}
    for file in sent:
        sha256 = entry.manifest[file]["sha256"]
        if not registry.objects.is_whole(sha256):
            raise RegistryError(f"{file} is damaged in the store",
                                where=str(registry.objects.path(sha256)),
                                fix="promote the model folder again")  # fmt: skip
    expect_token()
    there = repository(name)
    if there is not None:
        _expect_replaceable(there, public=public, yes=yes)
    return Push(
        entry=entry,
        name=name,
        private=not public,
        exists=there is not None,
        files={README: len(card(entry).encode()), **sent},
        left_out=tuple(sorted(entry.manifest.keys() - sent.keys() - {README})),
        removed=() if there is None else _stale(there.files, sent),
        notes=tuple(_notes(registry, entry)),
        onto=None if there is None else there.commit,
    )


def push(registry: Registry, plan: Push) -> str:
    """Upload what was planned as one commit; returns its hash. A new repository is private unless
    the plan says otherwise."""
    if not plan.exists:
        create(plan.name, private=plan.private)
    manifest = plan.entry.manifest
    files: dict[str, Path | bytes] = {
        file: registry.objects.path(manifest[file]["sha256"])
        for file in plan.files
        if file != README
    }
    files[README] = card(plan.entry).encode()
    message = f"strop registry push: entry {plan.entry.id}"
    return upload(plan.name, files, remove=plan.removed, message=message, onto=plan.onto)


def _expect_replaceable(there: Repository, *, public: bool, yes: bool) -> None:
    if there.private == public:
        state, other = ("private", "public") if there.private else ("public", "private")
        fix = "drop --public" if public else "pass --public"
        raise RegistryError(
            f"the repository exists and is {state}; a push leaves it so, and this one is {other}",
            where=there.name,
            fix=f"{fix}, change the repository's settings on the hub, or choose another name",
        )
    if not yes:
        raise RegistryError(
            f"the repository exists already, at commit {there.commit[:12]}",
            where=there.name,
            fix="choose another name, or pass --yes: its model files are then replaced by one more "
            "commit, and earlier commits stay",
        )


def _stale(there: Sequence[str], sent: dict[str, int]) -> tuple[str, ...]:
    """Files of a model that was there before: a loader would read them beside the new ones."""
    return tuple(file for file in there if of_a_model(file) and file not in sent)


def _notes(registry: Registry, entry: Entry) -> list[str]:
    """What whoever loads the model from the hub will miss."""
    notes = []
    if not any(file.startswith("tokenizer") for file in entry.manifest):
        notes.append("the entry holds no tokenizer")
    if "generation_config.json" not in entry.manifest:
        notes.append("the entry holds no generation_config.json: generate() stops by its defaults")
    if is_adapter(entry):
        stored = registry.objects.path(entry.manifest["adapter_config.json"]["sha256"])
        base = str(json.loads(stored.read_text()).get("base_model_name_or_path"))
        if Path(base).is_absolute():
            notes.append(f"the adapter's base is {base}, a folder of this machine: nobody else can "
                         "load it; train from model: {path: org/name, revision}")  # fmt: skip
    return notes
