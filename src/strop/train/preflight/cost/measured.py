"""Throughputs of a run that was made, read from its log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
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
    rows, log = _rows(run, "--measured")
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


def slowed(run: Path, alone: Measured) -> float:
    """By what factor training took longer than `alone` in an asynchronous run of the same recipe
    on the same device, where its process also asks for answers, parses them and rewards them. Steps
    beside which nothing was asked for any more do not count.

    Raises `UsageError` for a folder without such a log.
    """
    rows, log = _rows(run, "--measured-beside")
    if any("async/trainer_idle" not in row for row in rows):
        raise UsageError("the run did not sample while it trained", where=str(log),
                         fix="give a run with rollout.source: {kind: async}")  # fmt: skip
    beside = [row for before, row in pairwise(rows) if row["async/drawn"] > before["async/drawn"]]
    if not beside:
        raise UsageError("the run is too short: none of its later steps sampled and trained",
                         where=str(log), fix="give it some steps more")  # fmt: skip
    seconds = sum(float(row["step_time"]) - float(row["async/trainer_idle"]) for row in beside)
    return alone.training * seconds / _sum(beside, "num_tokens")


def _rows(run: Path, option: str) -> tuple[list[dict[str, Any]], Path]:
    """The steps that count of a run's log, and where it is."""
    log = run / "metrics.jsonl"
    if not log.is_file():
        raise UsageError(f"{option} wants a training run, and this is {kind_of(run)}",
                         where=str(run), fix="give the output of a strop train")  # fmt: skip
    return list(read_rows(log))[WARM_UP:], log


def _sum(rows: Sequence[dict[str, Any]], name: str) -> float:
    return sum(float(row[name]) for row in rows)


def _spread(seconds: Sequence[float]) -> tuple[float, ...]:
    mean = fmean(seconds)
    return tuple(one / mean for one in seconds)
