"""Records of the registry: entries, events and attempts, each written once and never changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from strop.files import sha256_hex

Manifest = Mapping[str, Mapping[str, Any]]
"""Files of a model folder: `{"model.safetensors": {"sha256": "9f...", "size": 4096}, ...}`."""

Action = Literal["promote", "rollback"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A model with its history.

    `Entry(id="3f9a12c4d5e6", weights="9b1c...", path="/runs/grpo/final", lineage={...},
    verdict={"name": "pass", ...}, manifest={"model.safetensors": {...}}, who="ana",
    created="2026-11-21T08:00:00+00:00", origin=None)`; `id` is the `content_id` of the other
    fields. `manifest` is empty if `path` is no folder. `origin` says who imported an entry, and
    which events it had in its first registry.
    """

    id: str
    weights: str
    path: str
    lineage: Mapping[str, Any]
    verdict: Mapping[str, Any] | None
    manifest: Manifest
    who: str
    created: str
    origin: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """`Event(3, "algebra", "promote", "3f9a12c4d5e6", None, "ana", "2026-11-21T08:00:00Z")`."""

    number: int
    name: str
    action: Action
    entry: str
    reason: str | None
    who: str
    at: str


@dataclass(frozen=True, slots=True)
class GateAttempt:
    """One judgement of the gate, passed or not.

    `GateAttempt(number=7, evidence="5d1e...", suite="gsm8k-sealed", sealed=True, base="9b1c...",
    candidate="77aa...", verdict="inconclusive", who="ana", at="2026-11-21T08:00:00+00:00",
    look=2)`; `look` counts the attempts on the same evidence up to this one.
    """

    number: int
    evidence: str
    suite: str
    sealed: bool
    base: str
    candidate: str
    verdict: str
    who: str
    at: str
    look: int


def content_id(
    weights: str,
    lineage: Mapping[str, Any],
    verdict: Mapping[str, Any] | None,
    manifest: Manifest,
) -> str:
    """12 hex digits of the sha256 of everything that was promoted: weights, lineage and verdict."""
    identity = json.dumps([weights, lineage, verdict, manifest], sort_keys=True)
    return sha256_hex(identity, 12)


def size_of(manifest: Manifest) -> int:
    """Bytes of all files."""
    return sum(int(file["size"]) for file in manifest.values())
