"""Registries: what is current, what it was made of, and the way back."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict

from strop.errors import StropError
from strop.evals.gate.promote import promote
from strop.registry.lineage import parents_of
from strop.registry.records import Entry, Event
from strop.registry.store import Registry
from strop.registry.tree import drawn
from strop.studio.site import Site


class Promotion(BaseModel):
    """`{"registry": "registry.db", "model": "runs/dpo/final", "entry": "support", "verdict":
    "gates/dpo.json"}`; all paths are below the root."""

    model_config = ConfigDict(extra="forbid")

    registry: str
    model: str
    entry: str
    verdict: str


class TakingBack(BaseModel):
    """`{"registry": "registry.db", "entry": "support", "reason": "slow answers"}`."""

    model_config = ConfigDict(extra="forbid")

    registry: str
    entry: str
    reason: str


@dataclass(frozen=True, slots=True)
class Named:
    """A name with the entry that is current, and what happened to it."""

    name: str
    current: Entry | None
    events: tuple[Event, ...]
    chain: tuple[str, ...]
    tree: str


@dataclass(frozen=True, slots=True)
class Shown:
    path: str
    names: tuple[Named, ...]
    problem: str = ""


def registry_routes(site: Site) -> APIRouter:
    router = APIRouter()

    @router.get("/registry")
    def registries() -> HTMLResponse:
        found = site.root.found()
        shown = [_shown(path, site.root.inside(path)) for path in found.registries]
        finals = [
            f"{run}/final" for run in found.runs if (site.root.folder / run / "final").is_dir()
        ]
        return site.page("registry.html", "Registry", "/registry", registries=shown,
                         models=finals, gates=found.gates)  # fmt: skip

    @router.post("/act/promote")
    def promoted(body: Promotion) -> dict[str, str]:
        entry = promote(
            site.root.inside(body.model), body.entry, verdict=site.root.inside(body.verdict),
            registry=site.root.inside(body.registry),
        )  # fmt: skip
        return {"said": f"{body.entry} is now {entry.id}"}

    @router.post("/act/rollback")
    def taken_back(body: TakingBack) -> dict[str, str]:
        store = Registry(site.root.inside(body.registry))
        entry = store.rollback(body.entry, body.reason or None)
        return {"said": f"{body.entry} is {entry.id} again"}

    return router


def _shown(path: str, database: Path) -> Shown:
    try:
        store = Registry(database)
        return Shown(path, tuple(_named(store, name) for name in store.names()))
    except (StropError, sqlite3.Error) as error:
        return Shown(path, (), f"{path}: {error}")


def _named(store: Registry, name: str) -> Named:
    current = store.current(name)
    events = tuple(reversed(store.events(name)))
    lineage = None if current is None else current.lineage
    chain = () if lineage is None else tuple(chain_of(lineage))
    tree = "" if lineage is None else "\n".join(drawn(lineage))
    return Named(name, current, events, chain, tree)


def chain_of(lineage: Mapping[str, Any]) -> list[str]:
    """The models that a model came from, itself last: `["base", "sft: sft/final", ...]`."""
    said = str(lineage.get("model", "?"))
    title = "/".join(Path(said).parts[-2:])
    own = f"{lineage['method']}: {title}" if "method" in lineage else title
    parents = parents_of(lineage)
    return [*(chain_of(parents[0]) if parents else []), own]
