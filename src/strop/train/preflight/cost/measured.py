"""Throughputs of a run that was made, read from its log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from strop.errors import UsageError
from strop.evals.folders import kind_of
from strop.tracking.runlog import read_rows

WARM_UP = 1
"""Steps at the beginning that are not counted."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Answer tokens a second of one device, tokens of the mean and of the longest answer, and how
    long each step took in shares of the mean: `Measured(4200.0, 9800.0, 212.0, 512.0, (1.1, 0.9),
    ...)`.
    """

    sampling: float
    training: float
    mean_length: float
    longest: float
    sampling_spread: tuple[float, ...]
    training_spread: tuple[float, ...]


def measured(run: Path) -> Measured:
    """Of the folder of an online run that sampled and trained in turn on one device.

    Raises `UsageError` for a folder without such a log.
    """
    log = run / "metrics.jsonl"
    if not log.is_file():
        raise UsageError(f"--measured wants a training run, and this is {kind_of(run)}",
                         where=str(run), fix="give the output of a strop train")  # fmt: skip
    rows = list(read_rows(log))[WARM_UP:]
    if not rows or any("sampling_time" not in row for row in rows):
        raise UsageError("the run has no step that sampled and was not its first", where=str(log),
                         fix="give a run of a method that learns from rewards")  # fmt: skip
    if any(name.startswith("async/") for row in rows for name in row):
        raise UsageError("the run sampled while it trained, so neither was timed alone",
                         where=str(log), fix="give a run with a synchronous source")  # fmt: skip
    sampling = [float(row["sampling_time"]) for row in rows]
    training = [float(row["step_time"]) - one for row, one in zip(rows, sampling, strict=True)]
    tokens = _sum(rows, "num_tokens")
    return Measured(
        tokens / sum(sampling),
        tokens / sum(training),
        tokens / _sum(rows, "completions/count"),
        max(float(row["completions/max_length"]) for row in rows),
        _spread(sampling),
        _spread(training),
    )


def _sum(rows: Sequence[dict[str, Any]], name: str) -> float:
    return sum(float(row[name]) for row in rows)


def _spread(seconds: Sequence[float]) -> tuple[float, ...]:
    mean = fmean(seconds)
    return tuple(one / mean for one in seconds)
