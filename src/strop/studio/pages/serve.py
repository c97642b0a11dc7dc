"""What a server kept: requests, feedback, and canaries with what is known of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from strop.errors import StropError
from strop.serve.canary.ratings import SIDES, Ratings, Side
from strop.serve.canary.trial import BEGIN, END, rating_in
from strop.serve.traffic.rows import rows_in
from strop.studio.site import Site
from strop.tracking.story.bands import Band, bands
from strop.tracking.story.samples import written

NEWEST = 50
"""Exchanges that a page shows."""


@dataclass(slots=True)
class Arm:
    """A side of a trial, or a model outside of trials: answers, and thumbs about them."""

    answers: int = 0
    up: int = 0
    down: int = 0
    edits: int = 0

    @property
    def liked(self) -> float | None:
        """Share of thumbs that are up."""
        thumbs = self.up + self.down
        return self.up / thumbs if thumbs else None


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question and its answers as text."""

    id: str
    model: str
    arm: str
    asked: str
    said: str


@dataclass(slots=True)
class Standings:
    """The ratings of a trial in their order, one a user; `rules` are the event with which it
    began."""

    rules: Mapping[str, Any]
    said: list[tuple[Side, float]] = field(default_factory=list)
    sessions: set[str] = field(default_factory=set)

    def rate(self, answered: Mapping[str, Any], row: Mapping[str, Any]) -> None:
        """Count a feedback, as the server does: the first of a user that speaks of the signal."""
        low, high = self.rules["scale"]
        value = rating_in(row, str(self.rules["signal"]), (float(low), float(high)))
        session = str(answered.get("session"))
        if value is not None and session not in self.sessions:
            self.sessions.add(session)
            self.said.append((answered["arm"], value))

    def drawn(self) -> str:
        """The confidence sequence of the difference (canary less stable) after each rating, as an
        `<svg>`; empty before both sides have one. It is the server's own: the same ratings, counted
        in the same way."""
        ratings = Ratings(float(self.rules["share"]), float(self.rules["alpha"]))
        rows = []
        for number, (side, value) in enumerate(self.said, start=1):
            ratings.add(side, value)
            standing = ratings.standing
            if standing.difference is not None:
                rows.append((number, standing.difference, standing.low, standing.high))
        if not rows:
            return ""
        steps, mean, low, high = (
            np.array(column, dtype=float) for column in zip(*rows, strict=True)
        )
        low, high = np.maximum(low, -1.0), np.minimum(high, 1.0)
        band = Band("canary less stable", 0, steps.astype(np.int64), mean, low, high, 2)
        return bands("difference of ratings", [band])


@dataclass(slots=True)
class Traffic:
    """All that a folder of traffic says, counted."""

    arms: dict[tuple[str, str], Arm] = field(default_factory=dict)
    days: Counter[str] = field(default_factory=Counter)
    events: list[str] = field(default_factory=list)
    shadows: int = 0
    newest: list[Exchange] = field(default_factory=list)
    feedback: dict[str, list[str]] = field(default_factory=dict)
    trials: dict[str, Standings] = field(default_factory=dict)

    def arm(self, key: tuple[str, str]) -> Arm:
        return self.arms.setdefault(key, Arm())


def serve_routes(site: Site) -> APIRouter:
    router = APIRouter()

    @router.get("/serve")
    def serve(folder: str = "") -> HTMLResponse:
        found = site.root.found().traffic
        chosen = folder or (found[0] if found else "")
        traffic, problem = None, ""
        if chosen:
            try:
                traffic = counted(site.root.inside(chosen))
            except StropError as error:
                problem = str(error)
        drawn = {} if traffic is None else {
            name: Markup(trial.drawn()) for name, trial in traffic.trials.items()
        }  # fmt: skip
        return site.page("serve.html", "Serve", "/serve", folders=found, chosen=chosen,
                         traffic=traffic, drawn=drawn, problem=problem)  # fmt: skip

    return router


def counted(folder: Path) -> Traffic:
    """Read a folder of traffic. Raises `UsageError` for a folder without, and for damaged lines."""
    traffic = Traffic()
    owner: dict[str, Mapping[str, Any]] = {}
    for row in rows_in(folder):
        if "event" in row:
            _happened(traffic, row)
        elif "digest" in row:
            _rated(traffic, row, owner.get(str(row.get("id"))))
        elif "messages" in row or "prompt" in row:
            owner[str(row.get("id"))] = row
            traffic.arm(_key(row)).answers += 1
            traffic.days[str(row.get("time", ""))[:10]] += 1
            traffic.newest.append(exchange_of(row))
            del traffic.newest[:-NEWEST]
    return traffic


def exchange_of(row: Mapping[str, Any]) -> Exchange:
    answers = row.get("answers") or [row.get("answer", "")]
    said = [written(one if isinstance(one, str) else [one]) for one in answers]
    return Exchange(
        str(row.get("id")), *_key(row), written(row.get("messages", "")), "\n\n".join(said)
    )


def _happened(traffic: Traffic, row: Mapping[str, Any]) -> None:
    kind, at = row["event"], str(row.get("time", ""))[:19].replace("T", " ")
    if kind == "shadow":
        traffic.shadows += 1
    elif kind == BEGIN:
        traffic.trials.setdefault(str(row["trial"]), Standings(row))
    elif kind == END:
        traffic.events.append(
            f"{at} canary {row.get('trial')} was {row.get('state')}: {row.get('why')}"
        )
    else:
        traffic.events.append(f"{at} {row.get('model')} is {row.get('version')} from here on")


def _rated(traffic: Traffic, row: Mapping[str, Any], of: Mapping[str, Any] | None) -> None:
    if of is None:
        return
    arm = traffic.arm(_key(of))
    said = []
    if row.get("label") is not None:
        arm.up += bool(row["label"])
        arm.down += not row["label"]
        said.append("up" if row["label"] else "down")
    if "edit" in row:
        arm.edits += 1
        said.append("edited")
    if row.get("name"):
        said.append(f"{row['name']} {row.get('score')}")
    trial = traffic.trials.get(str(of.get("trial")))
    if trial is not None and of.get("arm") in SIDES:
        trial.rate(of, row)
    traffic.feedback.setdefault(str(row["id"]), []).extend(said)


def _key(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row.get("model", "")), str(row.get("arm") or "")
