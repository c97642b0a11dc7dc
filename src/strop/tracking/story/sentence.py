"""What a run did, in a sentence or two: what rose, what fell, what rang."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strop.tracking.story.log import MetricsLog
from strop.tracking.story.panels import HELD_OUT

NOISE = 3.0
"""A change counts from so many standard errors on: a report that names ten changes of noise is not
read twice."""
LEAST = 0.02
"""A change below this share of the larger value is none worth a word."""

WORDS = (
    ("reward", "the reward", ""),
    ("rewards/accuracies", "the share of pairs with chosen above rejected", ""),
    ("rewards/margins", "the margin", ""),
    ("displacement/chosen_per_token", "the chosen answers' log-prob against the reference",
     " nats a token"),
    ("loss", "the loss", ""),
    ("completions/mean_length", "the length of answers", " tokens"),
    ("entropy", "entropy", ""),
    ("kl", "KL to the reference", ""),
    ("teacher/divergence", "the distance to the teacher", " nats a token"),
)  # fmt: skip
"""Metrics that the sentence may name, how it calls them, and their unit."""


@dataclass(frozen=True, slots=True)
class Change:
    """How a metric went from the first to the last part of a run: `Change(0.3, 0.81, "rose")`."""

    first: float
    last: float
    verb: str


def change(values_N: NDArray[np.float64]) -> Change | None:
    """The means of the first and of the last fifth (at most 20 values each), and whether they
    differ by more than noise. `None` for fewer than two values."""
    count = len(values_N)
    if count < 2:
        return None
    size = max(1, min(20, count // 5))
    first, last = values_N[:size], values_N[-size:]
    before, after = float(first.mean()), float(last.mean())
    error = 0.0
    if size > 2:
        error = math.sqrt((first.var(ddof=1) + last.var(ddof=1)) / size)
    moved = abs(after - before)
    if moved <= max(NOISE * error, LEAST * max(abs(before), abs(after))):
        return Change(before, after, "held")
    return Change(before, after, "rose" if after > before else "fell")


def sentence(log: MetricsLog) -> str:
    """`Over 80 steps the reward rose from 0.3 to 0.81; entropy fell from 0.2 to 0.05. No alarm
    rang.`"""
    if not len(log):
        return "Nothing was logged yet."
    moved, held = [], []
    online = "reward" in log.names
    for name, words, unit in WORDS:
        if name == "loss" and (online or "rewards/accuracies" in log.names):
            continue
        found = change(log.series(name)[1])
        if found is None:
            continue
        if found.verb == "held":
            held.append(words)
        else:
            moved.append(f"{words} {_went(found, unit)}{_unseen(log, name)}")
    told = "; ".join(moved)
    if held:
        told += f"{', while ' if told else ''}{_and(held)} did not change"
    steps = f"{log.step} step{'s' if log.step != 1 else ''}"
    begin = f"Over {steps} {told or 'nothing was measured twice'}."
    return f"{begin} {_rang(log)}"


def _went(found: Change, unit: str) -> str:
    """A value that is rounding beside the other one is 0."""
    least = 1e-4 * max(abs(found.first), abs(found.last))
    first, last = (value if abs(value) > least else 0.0 for value in (found.first, found.last))
    return f"{found.verb} from {first:.3g} to {last:.3g}{unit}"


def _unseen(log: MetricsLog, name: str) -> str:
    """What the held-out values did meanwhile."""
    found = change(log.series(f"{HELD_OUT}{name}")[1])
    if found is None:
        return ""
    if found.verb == "held":
        return f" (held out: unchanged at {found.last:.3g})"
    return f" (held out: {_went(found, '')})"


def _rang(log: MetricsLog) -> str:
    if not log.alarms:
        return "No alarm rang."
    counts = Counter(alarm.name for alarm in log.alarms)
    first = {name: next(a.step for a in log.alarms if a.name == name) for name in counts}
    told = [
        f"{name.replace('_', ' ')} at step {first[name]}"
        + (f" and {count - 1} more time{'s' if count > 2 else ''}" if count > 1 else "")
        for name, count in counts.items()
    ]
    return f"Alarms: {_and(told)}."


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
