"""A verdict as a page: the sentence first, then the checks, then answers side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from strop.evals.gate.judge import EvalRecords, counted
from strop.evals.gate.pairing import paired
from strop.files import write_whole
from strop.types import Check, EvalRecord, Verdict

FILES = Path(__file__).parent / "files"

EXAMPLES = 5
"""Wins, and as many losses, shown of a score."""

SLICES = 20
"""Groups shown, the most significant changes first."""

REACH = 300
"""Half the width of the plot."""


@dataclass(frozen=True, slots=True)
class ForestRow:
    """One line of the forest plot, in plot coordinates: 0 is no change for `low`, `estimate` and
    `high`; `bounds` are the policy's."""

    check: Check
    low: float
    estimate: float
    high: float
    bounds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Examples:
    """Items that changed most: `(base's record, candidate's)`."""

    score: str
    wins: tuple[tuple[EvalRecord, EvalRecord], ...]
    losses: tuple[tuple[EvalRecord, EvalRecord], ...]


def write_page(
    path: Path,
    verdict: Verdict,
    base: EvalRecords,
    candidate: EvalRecords,
    *,
    policy: str | None = None,
) -> None:
    """Write one HTML file that opens without a network; `policy` is the policy's name."""
    shown = _shown(verdict, base, candidate, policy)
    page = _templates().get_template("gate.html").render(style=Markup(gate_style()), **shown)
    write_whole(path, page)


def gate_html(
    verdict: Verdict, base: EvalRecords, candidate: EvalRecords, *, policy: str | None = None
) -> str:
    """The body of that page, to stand in a larger one that has `gate_style`; without records
    answers are left out."""
    shown = _shown(verdict, base, candidate, policy)
    return _templates().get_template("gate_body.html").render(**shown)


def gate_style() -> str:
    """The style sheet of a verdict."""
    return (FILES / "gate.css").read_text(encoding="utf-8")


def _shown(
    verdict: Verdict, base: EvalRecords, candidate: EvalRecords, policy: str | None
) -> dict[str, Any]:
    return {
        "verdict": verdict,
        "policy": policy,
        "rows": forest(verdict.checks),
        "reach": REACH,
        "slices": verdict.slices[:SLICES],
        "examples": [examples(base, candidate, score) for score in _answered(verdict, base)],
    }


def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(FILES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["counted"] = counted
    return made


def forest(checks: Sequence[Check]) -> list[ForestRow]:
    """Intervals on one scale for differences and one for ratios (their distance from 1)."""
    return [_row(check, _scale(check, checks)) for check in checks]


def examples(base: EvalRecords, candidate: EvalRecords, score: str) -> Examples:
    """The largest gains and the largest losses of a score."""
    sides = paired(base, candidate, score, max_unscored=1.0).sides
    known = [s for s in sides if s[0].score is not None and s[1].score is not None]
    best = sorted(known, key=_gain, reverse=True)[:EXAMPLES]
    worst = sorted(known, key=_gain)[:EXAMPLES]
    wins = tuple(side for side in best if _gain(side) > 0)
    return Examples(score, wins, tuple(side for side in worst if _gain(side) < 0))


def _gain(side: tuple[EvalRecord, EvalRecord]) -> float:
    return (side[1].score or 0.0) - (side[0].score or 0.0)


def _answered(verdict: Verdict, base: EvalRecords) -> list[str]:
    """Names of the checked scores whose records hold answers."""
    with_text = {record.task for record in base if record.output}
    names = dict.fromkeys(check.name for check in verdict.checks if check.kind != "band")
    return [name for name in names if name in with_text]


def _values(check: Check) -> tuple[float, ...]:
    """The numbers of a check that are on its scale, as distances from no change."""
    zero = 1.0 if check.kind == "band" else 0.0
    bounds = (check.bound,) if check.upper is None else (check.bound, check.upper)
    return tuple(v - zero for v in (check.low, check.estimate, check.high, *bounds))


def _scale(check: Check, checks: Sequence[Check]) -> float:
    """Plot units per unit, so that all checks of the same scale fit."""
    alike = [other for other in checks if (other.kind == "band") == (check.kind == "band")]
    finite = [abs(v) for other in alike for v in _values(other) if abs(v) < float("inf")]
    return REACH / (1.1 * max([*finite, 1e-3]))


def _row(check: Check, scale: float) -> ForestRow:
    low, estimate, high, *bounds = (
        max(-REACH, min(REACH, value * scale)) for value in _values(check)
    )
    return ForestRow(check, low, estimate, high, tuple(bounds))
