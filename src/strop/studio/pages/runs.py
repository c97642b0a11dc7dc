"""All runs under the root."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from strop.studio.root import Root
from strop.studio.site import Site
from strop.tracking.reading import FAULTS, opened
from strop.tracking.story.facts import METRICS, Stamp, facts_of, stamp_of

LAST_BYTES = 8192
"""Enough for the last row of a log."""
COUNTED = ("eval_reward", "reward", "rewards/accuracies", "eval_loss", "loss")
"""The number that stands for a run in a list: the first of these that it logs."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A run in the list: `Listed("runs/dpo", "dpo", "finished", 80, "reward", 0.41, ...)`."""

    path: str
    method: str
    state: str
    step: int
    metric: str
    value: float | None
    started: float
    problem: str


class Lister:
    """The list of runs; a run that did not change since it was listed is not read again."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self._known: dict[str, tuple[Stamp, Listed]] = {}

    def runs(self) -> list[Listed]:
        """Those at work first, then the newest."""
        rows = [self._row(path) for path in self.root.found().runs]
        rows.sort(key=lambda row: row.started, reverse=True)
        return sorted(rows, key=lambda row: row.state not in ("running", "paused"))

    def _row(self, path: str) -> Listed:
        stamp = stamp_of(self.root.folder / path)
        known = self._known.get(path)
        if known is None or known[0] != stamp:
            known = self._known[path] = stamp, _listed(self.root.folder, path)
        return known[1]


def runs_routes(site: Site) -> APIRouter:
    router, lister = APIRouter(), Lister(site.root)

    @router.get("/")
    @router.get("/runs")
    def runs() -> HTMLResponse:
        return site.page("runs.html", "Runs", "/runs", runs=lister.runs())

    @router.get("/part/runs")
    def part() -> HTMLResponse:
        return site.part("runs_table.html", runs=lister.runs())

    return router


def _listed(folder: Path, path: str) -> Listed:
    facts = facts_of(folder / path)
    row = last_row(folder / path / METRICS)
    metric = next((name for name in COUNTED if row.get(name) is not None), "")
    value = row.get(metric)
    return Listed(
        path, facts.method, facts.state, int(row.get("step", 0)), metric, value,
        facts.started, facts.problems[0] if facts.problems else "",
    )  # fmt: skip


def last_row(path: Path) -> dict[str, float]:
    """The last whole row of a log, without reading what stands before it; empty where there is
    none."""
    try:
        with opened(path) as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - LAST_BYTES))
            text = stream.read()
    except OSError:
        return {}
    return next(_whole_rows(text), {})


def _whole_rows(text: bytes) -> Iterator[dict[str, float]]:
    """Rows from the last one backwards."""
    for line in reversed(text[: text.rfind(b"\n") + 1].splitlines()):
        try:
            row = json.loads(line)
            yield {name: float(value) for name, value in row.items()
                   if isinstance(value, int | float)} | {"step": int(row["step"])}  # fmt: skip
        except FAULTS:
            continue
