"""Judge cards without a calibration."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from strop.judge.asking.judges import Judge
from strop.judge.trust.card import JudgeCard


def card_of(judge: Judge, /, **changes: Any) -> dict[str, Any]:
    """The card of a good judge of pairs, but for what is changed."""
    share = {"mean": 0.8, "low": 0.75, "high": 0.85}
    card: dict[str, Any] = dict.fromkeys(field.name for field in fields(JudgeCard))
    return card | {
        "judge": dict(judge.identity()), "form": "pairwise", "disagreement": "tie", "decided": 100,
        "right": share, "rates": {"sensitivity": share, "specificity": share}, "sways": {},
        "better_than_chance": True, "sentence": "The judge is right on 80 % of 100 pairs.",
        **changes,
    }  # fmt: skip


def write_card(path: Path, card: dict[str, Any]) -> Path:
    path.write_text(json.dumps(card))
    return path
