"""The records of each step: a pure function of (seed, epoch, position)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.errors import UsageError

Order = NDArray[np.integer[Any]]
"""Indices of records in the order they are visited, shape [records]; not to be written to."""


def permutation(count: int, seed: int, epoch: int, stream: int = 0) -> Order:
    """The order of `count` records in one epoch; streams of one seed are independent.

    Takes four bytes per record; caches the last epoch of each stream.
    """
    latest = _latest(count, seed, stream)
    if epoch not in latest:
        latest.clear()
        draw = np.random.Generator(np.random.Philox(key=[seed + (stream << 32), epoch]))
        order = draw.permutation(count).astype(np.min_scalar_type(count))
        order.setflags(write=False)
        latest[epoch] = order
    return latest[epoch]


@lru_cache(maxsize=8)
def _latest(count: int, seed: int, stream: int) -> dict[int, Order]:
    return {}


def batch_indices(count: int, batch_size: int, seed: int, step: int, stream: int = 0) -> list[int]:
    """Indices of step `step` (from 0). Epochs follow each other without a gap or a short batch."""
    place, end = step * batch_size, (step + 1) * batch_size
    indices: list[int] = []
    while place < end:
        epoch, first = divmod(place, count)
        last = min(count, first + end - place)
        indices += permutation(count, seed, epoch, stream)[first:last].tolist()
        place += last - first
    return indices


@dataclass(frozen=True, slots=True)
class Part:
    """One source of a mixture: `Part(replay=False, first=0, size=900, share=0.75)`.

    `first` is where its records start among those of its role (own or replay).
    """

    replay: bool
    first: int
    size: int
    share: float


@dataclass(frozen=True, slots=True)
class DrawnRecords:
    """Records of one step: indices among the method's own records and among replayed ones."""

    own: tuple[int, ...]
    replay: tuple[int, ...]


class DataMixture:
    """Draws every step's records from several sources in fixed shares.

    Each source has its own order. Every step takes the same number of records from a source: its
    share of `batch_size`, rounded so that the counts add up.
    """

    def __init__(self, parts: Sequence[Part], batch_size: int, seed: int) -> None:
        self.parts, self.seed = tuple(parts), seed
        self.counts = _apportion([part.share for part in parts], batch_size)
        if min(self.counts) == 0:
            raise UsageError(
                f"a step of {batch_size} records has no room for a source of weight "
                f"{min(part.share for part in parts):.3g}",
                fix="raise run.batch_size or that source's weight in `data`",
            )

    def draw(self, step: int, round_: int = 0) -> DrawnRecords:
        """The records of step `step` (from 0); further rounds of a step draw other records."""
        own: list[int] = []
        replay: list[int] = []
        for stream, (part, count) in enumerate(zip(self.parts, self.counts, strict=True)):
            chosen = batch_indices(
                part.size, count, self.seed, step, stream + round_ * len(self.parts)
            )
            (replay if part.replay else own).extend(part.first + i for i in chosen)
        return DrawnRecords(tuple(own), tuple(replay))

    @property
    def own(self) -> int:
        """The number of the method's own records in every step."""
        return sum(n for part, n in zip(self.parts, self.counts, strict=True) if not part.replay)

    def epoch_steps(self) -> float:
        """The number of steps that visit as many own records as there are."""
        return sum(part.size for part in self.parts if not part.replay) / self.own


def _apportion(shares: Sequence[float], total: int) -> list[int]:
    """Whole numbers in these proportions with the sum `total` (largest remainders)."""
    exact = [share * total / sum(shares) for share in shares]
    counts = [int(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts
