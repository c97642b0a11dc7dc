"""What was measured on a GPU beside what is to be reached."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu import COMPILED, FUSED, SMALL_MOMENTS, WARM_UP

Side = Mapping[str, Any]

HEAD = ("figure", "goal", "reached", "strop", "TRL", "TRL's best", "same work")

OWN = ("strop", COMPILED.name, FUSED.name, SMALL_MOMENTS.name)
"""Sides that are strop's."""

GRADIENT, LOGPROB = 0.03, 0.05
"""In bfloat16 two right computations of a gradient norm are up to so far apart (relative), and of a
log-prob so many nats on average."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A row: what is compared, in which case, at which shape, and the figure to reach."""

    name: str
    case: str
    kind: str
    goal: str
    side: str = "strop"


FIGURES = (
    Figure("DPO step, times TRL's speed", "gpu-dpo", "speed", ">= 1.5"),
    Figure("GRPO update, times TRL's speed", "gpu-grpo", "update", ">= 1.5"),
    Figure("sampler, times `generate`'s tokens a second", "gpu-sampler", "rate", ">= 3.0"),
    Figure("utilisation, LoRA at 8B", "gpu-sft", "utilisation", ">= 45 %"),
    Figure("peak memory of DPO, share of TRL's", "gpu-dpo", "memory", "<= 0.7"),
    Figure("peak memory of GRPO, share of TRL's", "gpu-grpo", "memory", "<= 0.7"),
    Figure("compiled DPO step, times strop's own speed", "gpu-dpo", "speed", "> 1", COMPILED.name),
    Figure("DPO step with Liger, times strop's own speed", "gpu-dpo", "speed", "> 1", FUSED.name),
    Figure(
        "peak memory with 8-bit AdamW, share of strop's own",
        "gpu-dpo",
        "memory",
        "< 1",
        SMALL_MOMENTS.name,
    ),
)


def rows(found: Mapping[str, Any]) -> list[list[str]]:
    """A row for each figure; cells of what was not measured are empty."""
    return [_row(figure, found) for figure in FIGURES]


def markdown(found: Mapping[str, Any]) -> str:
    """The table with its card, for docs/speed.md and for a file beside the results."""
    lines = [list(HEAD), ["---"] * len(HEAD), *rows(found)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = [
        f"- {name}, {entrant}: {side['absent']}"
        for name, run in found["runs"].items()
        for entrant, side in run["sides"].items()
        if "absent" in side
    ]
    named = f"{found['card']}, torch {found['torch']}."
    return "\n\n".join([named, table, *(["No figure:", "\n".join(notes)] if notes else [])])


def _row(figure: Figure, found: Mapping[str, Any]) -> list[str]:
    sides: Mapping[str, Side] = next((run["sides"] for name, run in found["runs"].items()
                  if name.startswith(f"{figure.case}-")), {})  # fmt: skip
    done = {name: side for name, side in sides.items() if side.get("done")}
    own = {name: done.pop(name) for name in OWN if name in done}
    strop = own.get(figure.side)
    if figure.side != "strop":  # beside strop as it comes
        done = {name: side for name, side in own.items() if name == "strop"}
    blank = [figure.name, figure.goal, "", "", "", "", ""]
    if strop is None:
        return blank
    if figure.kind == "utilisation":
        share = _utilisation(strop, found["peak_rate"])
        return [figure.name, figure.goal, share, f"{_seconds(strop, 'speed'):.2f} s", "", "", ""]
    if not done:
        return blank
    by = "speed" if figure.kind == "memory" else figure.kind
    best = min(done, key=lambda name: _seconds(done[name], by))
    theirs = done[best]
    if figure.kind == "memory":
        ours_peak, their_peak = (_peak(side) for side in (strop, theirs))
        sizes = [f"{peak / 2**30:.1f} GiB" for peak in (ours_peak, their_peak)]
        shown = [f"{ours_peak / their_peak:.2f}", *sizes]
    else:
        spent, taken = (_seconds(side, by) for side in (strop, theirs))
        unit = " us a token" if by == "rate" else " s"
        scale = 1e6 if by == "rate" else 1.0
        shown = [f"{taken / spent:.2f}", *(f"{scale * s:.2f}{unit}" for s in (spent, taken))]
    work = same_work(figure.case, strop, done)
    if figure.side != "strop":
        return [figure.name, figure.goal, *shown[:2], "", f"{shown[2]} (strop)", work]
    return [figure.name, figure.goal, *shown, best, work]


def _seconds(side: Side, kind: str) -> float:
    """Median of the counted steps: all of a step, its update alone, or seconds a token."""
    counted: Sequence[Mapping[str, float]] = side["steps"][WARM_UP:]
    if kind == "rate":
        return statistics.median(row["seconds"] / row["tokens"] for row in counted)
    if kind == "update":
        return statistics.median(row["seconds"] - row["sampling"] for row in counted)
    return statistics.median(row["seconds"] for row in counted)


def _utilisation(side: Side, peak_rate: float | None) -> str:
    if peak_rate is None:
        return ""
    counted = side["steps"][WARM_UP:]
    return (
        f"{100 * statistics.median(r['flops'] / r['seconds'] for r in counted) / peak_rate:.1f} %"
    )


def _peak(side: Side) -> int:
    return max(int(row["peak"]) for row in side["steps"])


def same_work(case: str, strop: Side, others: Mapping[str, Side]) -> str:
    """Whether the sides were seen to compute the same; empty where nothing could be compared."""
    if case == "gpu-sampler":
        read = [side["check"]["loss"] for side in others.values() if "check" in side]
        return "" if not read else _told(max(read), LOGPROB, "nats")
    first = strop.get("check") if case == "gpu-grpo" else strop["steps"][0]
    # TRL's first batch is that of the first of its sides
    theirs = next(iter(others.values()))["steps"][0]
    if first is None:
        return ""
    apart = abs(first["grad_norm"] - theirs["grad_norm"]) / theirs["grad_norm"]
    return _told(apart, GRADIENT, "of the gradient norm")


def _told(apart: float, limit: float, unit: str) -> str:
    return f"{'yes' if apart <= limit else 'NO'}: {apart:.1g} {unit} apart"
