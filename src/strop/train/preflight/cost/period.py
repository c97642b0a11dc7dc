"""How long a step takes where one side samples and another trains: by formula, and by a queue.

Batches are numbered as the steps that train on them. With a staleness of s, batch k may be sampled
from weights that are up to s updates older than those it trains: its sampling begins no sooner than
update k - s is published. Several batches may then be on their way at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from statistics import fmean

import numpy as np
import numpy.typing as npt

BINS = 64
"""Parts that a step is divided into where the load of an engine changes while it lasts."""
PASSES = 5
"""Times that a queue goes through measured steps. In the first it fills, and that is not counted: a
run is longer than the few steps that were measured."""
HALVINGS = 12
"""Of the interval in which the number of batches on their way is looked for."""

Rounds = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
"""Seconds of a round (one token of every row) for so many rows at work."""


@dataclass(frozen=True, slots=True)
class Period:
    """Seconds from one step to the next, and the shares of them that each side waits for the other:
    `Period(seconds=10.0, generator_idle=0.4, trainer_idle=0.0)`."""

    seconds: float
    generator_idle: float
    trainer_idle: float


def period(generate: float, update: float, staleness: int, sync: float = 0.0) -> Period:
    """The period of whole batches that take `generate` and `update` seconds each time.

    With staleness 0 one side waits for the other: g + u + sync. From 1 on both work at once, and
    the slower one decides: max(g, u) + sync. While weights are handed over (`sync`) neither works
    on.
    """
    together = generate + update if staleness == 0 else max(generate, update)
    seconds = together + sync
    if seconds == 0:
        return Period(0.0, 0.0, 0.0)
    return Period(seconds, (together - generate) / seconds, (together - update) / seconds)


def queued(
    generate: Sequence[float], update: Sequence[float], staleness: int, sync: float = 0.0
) -> Period:
    """The same where batch k takes `generate[k]` and `update[k]` seconds, which differ by chance.

    A long batch is made up for by short ones only as far as the staleness lets sampling run ahead,
    so that the mean period is above that of the means. Batches are sampled one after the other, and
    those that were given follow each other again and again.
    """
    published = [0.0]
    sampled = 0.0
    given = list(zip(generate, update, strict=True))
    fills = len(given) * math.ceil((staleness + 1) / len(given))
    counted = len(given) * (PASSES - 1)
    for number, (sampling, training) in enumerate(islice(cycle(given), fills + counted)):
        begun = max(sampled, published[max(0, number - staleness)])
        sampled = begun + sampling + (sync if staleness else 0.0)
        published.append(max(sampled, published[-1]) + training + sync)
    seconds = (published[-1] - published[fills]) / counted
    if seconds == 0:
        return Period(0.0, 0.0, 0.0)
    return Period(
        seconds,
        1 - (fmean(generate) + sync) / seconds,
        1 - (fmean(update) + sync) / seconds,
    )


def batch_seconds(
    rows: float, mean: float, longest: float, round_seconds: Rounds, overlap: float
) -> float:
    """Seconds from one batch of answers to the next on an engine, with `overlap` batches on their
    way.

    A batch of `rows` answers lasts as many rounds as its longest answer has tokens, so that a new
    one begins every `longest / overlap` rounds. After a share x of its rounds, (1 - x)^(longest /
    mean - 1) of its rows are still at work: a law whose mean is `mean`, and under which all lengths
    are alike likely where the longest is twice the mean. One batch alone (`overlap` 1) ends with
    few rows at work; with more, others fill their places.
    """
    power = longest / mean - 1
    every = 1 / overlap
    at = (np.arange(BINS) + 0.5) / BINS * every
    active = np.zeros(BINS)
    while at[0] < 1:
        active += rows * np.where(at < 1, np.maximum(0.0, 1 - at) ** power, 0.0)
        at = at + every
    return float(longest * every * round_seconds(active).mean())


def generation(
    batch: Callable[[float], float], update: float, staleness: int, sync: float = 0.0
) -> float:
    """Seconds from one batch to the next that sampling allows, of `batch(overlap)`.

    With staleness s a batch has s + 1 periods from its first weights to the update it makes, less
    that update and the hand-over: overlap = s + 1 - (update + sync) / period. Where training
    decides the period, this is s; where sampling does, up to s + 1.
    """
    if staleness == 0:
        return batch(1.0)
    low, high = float(staleness), staleness + 1.0
    if batch(low) <= update:
        return batch(low)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        room = staleness + 1 - (update + sync) / (batch(middle) + sync)
        low, high = (middle, high) if room > middle else (low, middle)
    return batch(low)
