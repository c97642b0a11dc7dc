"""Differences between two entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from strop.recipe.loading.load import flat
from strop.registry.lineage import generations
from strop.registry.records import Entry
from strop.registry.tree import source_line

SIDES = ("candidate", "base")


@dataclass(frozen=True, slots=True)
class Difference:
    """`Difference("recipe", "optim.learning_rate", 1e-06, 2e-06)`; `None` where an entry lacks the
    key."""

    part: str
    key: str
    a: Any
    b: Any


def differences(a: Entry, b: Entry) -> list[Difference]:
    """Recipe keys, data, code, environment, parents, weights, verdict and scores that differ."""
    left, right = facts(a), facts(b)
    order = {part: number for number, part in enumerate(dict.fromkeys(p for p, _ in left | right))}
    found = [
        Difference(part, key, left.get((part, key)), right.get((part, key)))
        for part, key in left | right
        if left.get((part, key)) != right.get((part, key))
    ]
    return sorted(found, key=lambda difference: order[difference.part])


def facts(entry: Entry) -> dict[tuple[str, str], Any]:
    """All compared values, by (part, key)."""
    made = entry.lineage
    parts: dict[str, Mapping[str, Any]] = {
        "weights": {"sha256": entry.weights},
        "recipe": flat(made["resolved"]) if "resolved" in made else {"hash": made.get("recipe")},
        "data": {str(n): source_line(s) for n, s in enumerate(made.get("data", []), 1)},
        "rewards": {str(n): sha256 for n, sha256 in enumerate(made.get("rewards", []), 1)},
        "functions": {f["name"]: f["sha256"] for f in made.get("functions", [])},
        "code": made.get("code", {}),
        "environment": made.get("environment", {}),
        "parents": _parents(made),
        "verdict": {"name": entry.verdict["name"] if entry.verdict else "overridden"},
        "scores": scores(entry),
    }
    return {(part, key): value for part, row in parts.items() for key, value in row.items()}


def scores(entry: Entry) -> dict[str, float]:
    """The measured scores of both sides: `{"accuracy": 0.97, "accuracy of the base": 0.44}`.

    All scores of both evals if the verdict has them, else only those of its checks.
    """
    verdict = entry.verdict or {}
    sides = verdict.get("evals", {})
    measured = {side: dict(sides.get(side, {}).get("scores", {})) for side in SIDES}
    for check in verdict.get("checks", []):
        for side in SIDES:
            measured[side][check["name"]] = check[side]
    return {**measured["candidate"], **{f"{n} of the base": v for n, v in measured["base"].items()}}


def _parents(lineage: Mapping[str, Any]) -> dict[str, str]:
    """Ancestors by distance: a parent with the same weights at another path is the same parent."""
    above = generations(lineage)[-2::-1]
    return {
        f"{distance} up": f"{made.get('method', 'model')} {made.get('sha256', made['model'])}"
        for distance, made in enumerate(above, 1)
    }
