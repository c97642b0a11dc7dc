"""What a run did, in a sentence or two: what rose, what fell, what rang."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from strop.tracking.story.log import MetricsLog
from strop.tracking.story.panels import HELD_OUT

ENOUGH = 20
"""Values from which on a change is claimed; below it the first and the last are named."""
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


Verb = Literal["rose", "fell", "went", "peaked", "dipped", "held"]


@dataclass(frozen=True, slots=True)
class Change:
    """How a metric went from the first to the last part of a run: `Change(0.3, 0.81, "rose")`.

    `went` claims nothing: there are too few values to tell a change from noise. `peaked` and
    `dipped` ended about where they began, and were at `between` meanwhile.
    """

    first: float
    last: float
    verb: Verb
    between: float = 0.0


def change(values_N: NDArray[np.float64]) -> Change | None:
    """The means of the first and of the last fifth (at most 20 values each), and whether they
    differ by more than noise. `None` for fewer than two values."""
    count = len(values_N)
    if count < 2:
        return None
    size = max(1, min(20, count // 5))
    before, after = float(values_N[:size].mean()), float(values_N[-size:].mean())
    least = LEAST * max(abs(before), abs(after))
    if count < ENOUGH:
        return Change(before, after, "held" if abs(after - before) <= least else "went")
    least = max(least, NOISE * _error(values_N, size))
    if abs(after - before) > least:
        return Change(before, after, "rose" if after > before else "fell")
    means = np.convolve(values_N, np.full(size, 1 / size), "valid")
    high, low = float(means.max()), float(means.min())
    if high - max(before, after) > max(least, LEAST * abs(high)):
        return Change(before, after, "peaked", high)
    if min(before, after) - low > least:
        return Change(before, after, "dipped", low)
    return Change(before, after, "held")


def _error(values_N: NDArray[np.float64], size: int) -> float:
    """The standard error of the difference of two means of `size` values: of the values around a
    straight line through each fifth of the run, counted as fewer where each is like the one before
    it (as in an autoregressive series of order 1)."""
    parts = np.array_split(values_N, 5)
    left_N = np.concatenate([_around_line(part) for part in parts])
    squares = float((left_N**2).sum())
    if squares == 0:
        return 0.0
    # a line takes two degrees of freedom of its part, and makes neighbours less alike
    variance = squares / (len(values_N) - 2 * len(parts))
    alike = float((left_N[1:] * left_N[:-1]).sum()) / squares + 2 * len(parts) / len(values_N)
    alike = min(max(alike, 0.0), 0.99)
    counted = max(1.0, size * (1 - alike) / (1 + alike))
    return math.sqrt(2 * variance / counted)


def _around_line(values_N: NDArray[np.float64]) -> NDArray[np.float64]:
    places = np.arange(len(values_N), dtype=float)
    left_N: NDArray[np.float64] = values_N - np.polyval(np.polyfit(places, values_N, 1), places)
    return left_N


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
            moved.append(f"{words} {_went(found, unit)}{_unseen(log, name)}{_until(log, name)}")
    told = "; ".join(moved)
    if held:
        told += f"{', while ' if told else ''}{_and(held)} did not change"
    steps = f"{log.step} step{'s' if log.step != 1 else ''}"
    begin = f"Over {steps} {told or 'nothing was measured twice'}."
    return f"{begin} {_rang(log)}"


def _went(found: Change, unit: str) -> str:
    """A value that is rounding beside the others is 0."""
    least = 1e-4 * max(abs(found.first), abs(found.last), abs(found.between))
    first, last, between = (
        f"{value if abs(value) > least else 0.0:.3g}"
        for value in (found.first, found.last, found.between)
    )
    if found.verb in ("peaked", "dipped"):
        verb = "rose" if found.verb == "peaked" else "fell"
        return f"{verb} from {first} to {between} and came back to {last}{unit}"
    return f"{found.verb} from {first} to {last}{unit}"


def _until(log: MetricsLog, name: str) -> str:
    """A metric that stopped being a number is told with the step at which it still was one."""
    last = int(log.series(name)[0][-1])
    return f" (last measured at step {last})" if last < log.step and name in log.last_row else ""


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
