"""Verdicts: what was measured, and wins and losses side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from strop.errors import DataError, StropError
from strop.evals.gate.page import gate_html, gate_style
from strop.evals.gate.verdict import read_verdict
from strop.evals.records import read_records
from strop.studio.site import Site
from strop.types import Check, EvalRecord, Slice, Verdict


@dataclass(frozen=True, slots=True)
class Listed:
    path: str
    name: str
    sentence: str


def gate_routes(site: Site) -> APIRouter:
    router = APIRouter()

    @router.get("/gates")
    def gates() -> HTMLResponse:
        listed, problems = [], []
        for path in site.root.found().gates:
            try:
                said = read_verdict(site.root.inside(path))
            except StropError as error:
                problems.append(str(error))
                continue
            listed.append(Listed(path, str(said["name"]), str(said.get("sentence", ""))))
        return site.page("gates.html", "Gates", "/gates", gates=listed, problems=problems)

    @router.get("/gate/{path:path}")
    def gate(path: str) -> HTMLResponse:
        said = read_verdict(site.root.inside(path))
        verdict = verdict_of(said, path)
        base, candidate, problems = _records(said)
        policy = said.get("policy")
        name = policy.get("name") if isinstance(policy, Mapping) else None
        body = gate_html(verdict, base, candidate, policy=name)
        return site.page("gate_page.html", f"Gate {path}", "/gates", body=Markup(body),
                         style=Markup(gate_style()), problems=problems)  # fmt: skip

    return router


def verdict_of(said: Mapping[str, Any], path: str) -> Verdict:
    """A verdict from its file. Raises `DataError` for one of another form."""
    try:
        checks = tuple(Check(**check) for check in said["checks"])
        slices = tuple(Slice(**one) for one in said.get("slices") or ())
        remarks = tuple(str(one) for one in said.get("remarks") or ())
        return Verdict(said["name"], str(said["sentence"]), checks, slices, remarks)
    except (KeyError, TypeError) as error:
        raise DataError(f"the verdict is of another form ({error})", where=path,
                        fix="run `strop gate` again") from None  # fmt: skip


def _records(said: Mapping[str, Any]) -> tuple[list[EvalRecord], list[EvalRecord], list[str]]:
    """The records of both sides, where their folders are still there."""
    sides: list[list[EvalRecord]] = []
    for side in ("base", "candidate"):
        folder = (said.get("evals") or {}).get(side, {}).get("folder", "")
        try:
            sides.append(read_records(folder))
        except StropError as error:
            return [], [], [f"wins and losses are left out: {error.problem} ({error.where})"]
    return sides[0], sides[1], []
