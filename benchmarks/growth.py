"""How a step's time and memory grow with prompt, answer, group and vocabulary, for both systems."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases import SMALL_VOCABULARY, Case, Run

Row = dict[str, Any]

SHAPE, RECORDS, ROUNDS = "1m", 8, 5
GROWTH: dict[str, list[tuple[int, Run]]] = {
    "prompt tokens": [
        (n, Run(Case(f"prompt-{n}", "dpo", (n, n), (100, 100), RECORDS), SHAPE, SMALL_VOCABULARY,
                ROUNDS))
        for n in (50, 200, 400, 800, 1600)
    ],
    "answer tokens": [
        (n, Run(Case(f"answer-{n}", "dpo", (200, 200), (n, n), RECORDS), SHAPE, SMALL_VOCABULARY,
                ROUNDS))
        for n in (25, 100, 200, 400, 800)
    ],
    "answers a prompt": [
        (n, Run(Case(f"group-{n}", "grpo", (300, 300), (1, 64), 4, n), SHAPE, SMALL_VOCABULARY,
                ROUNDS))
        for n in (2, 4, 8, 16)
    ],
    "vocabulary": [
        (n, Run(Case(f"vocabulary-{n}", "dpo", (200, 200), (100, 100), RECORDS), SHAPE, n, ROUNDS))
        for n in (4_096, 16_384, 32_768, 65_536)
    ],
}  # fmt: skip
"""What grows, and the runs in which it does while all else stays."""


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Least squares: what one more of x adds to y."""
    x_mean, y_mean = statistics.fmean(xs), statistics.fmean(ys)
    apart = sum((x - x_mean) ** 2 for x in xs)
    return sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True)) / apart


def points(rows: Sequence[Row], axis: str) -> dict[str, list[tuple[int, float, float]]]:
    """(x, seconds, GiB of the whole process) of strop and of TRL along an axis."""
    by_name = {row["run"]["name"]: row for row in rows}
    found: dict[str, list[tuple[int, float, float]]] = {"strop": [], "TRL": []}
    for x, run in GROWTH[axis]:
        if run.name not in by_name:
            continue
        row = by_name[run.name]
        for system, entrant in (("strop", "strop"), ("TRL", row["best"])):
            seconds = statistics.median(row["seconds"][entrant])
            found[system].append((x, seconds, row["peaks"][entrant] / 2**30))
    return found


def draw(rows: Sequence[Row], path: Path) -> None:
    """Time above, memory below, one column an axis; the slope of each line in its label."""
    import matplotlib.pyplot as plt

    figure, places = plt.subplots(2, len(GROWTH), figsize=(15, 7))
    for column, axis in enumerate(GROWTH):
        for line, (name, unit) in enumerate(
            (("seconds a step", "ms"), ("peak memory, GiB", "MiB"))
        ):
            place = places[line, column]
            for system, colour in (("strop", "tab:green"), ("TRL", "tab:gray")):
                found = points(rows, axis)[system]
                xs, ys = [p[0] for p in found], [p[1 + line] for p in found]
                scale = 1000 if line == 0 else 1024
                label = f"{system}: {scale * slope(xs, ys):.3g} {unit} for one more"
                place.plot(xs, ys, "o-", color=colour, label=label)
            place.set_xlabel(axis)
            place.set_ylabel(name)
            place.set_ylim(bottom=0)
            place.locator_params(axis="x", nbins=5)
            place.legend(fontsize=8)
            place.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
