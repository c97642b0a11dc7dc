"""Eval items that stand in the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from strop.curate.check.finding import Section, finding
from strop.data.overlap import SHOWN, Overlap
from strop.types import Preference, Task


def leak(items: Sequence[Task | Preference], overlap: Overlap | None) -> Section:
    """How many eval items the data holds, and where."""
    if overlap is None:
        return Section("leak", {})
    matches = overlap.matches
    figures: dict[str, Any] = {
        "eval_items": overlap.items,
        "leaked": len(matches),
        "matches": [
            {"item": str(items[match.item].origin), "how": match.how, "share": match.share,
             "rows": match.count, "places": [str(place) for place in match.places[:SHOWN]]}
            for match in matches[:100]
        ],
    }  # fmt: skip
    if not matches:
        return Section("leak", figures)
    text = f"{len(matches):,} of {overlap.items:,} eval items stand in this data"
    places = [match.places[0] for match in matches[:5]]
    return Section("leak", figures, (finding("eval_leak", "error", text, len(matches), places),))
