"""Score pairs with a known truth, for `evidence/simulations.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BATCH = 500


def shares(discordance: float, difference: float) -> tuple[float, float, float]:
    """(gained, lost, unchanged) of a discordance and a true difference."""
    gained, lost = (discordance + difference) / 2, (discordance - difference) / 2
    if min(gained, lost) < -1e-12:
        raise ValueError(f"a difference of {difference} needs a discordance of at least that")
    return max(0.0, gained), max(0.0, lost), 1 - discordance


def sizes(clusters: int, mean: int, unequal: bool) -> NDArray[np.intp]:
    """Cluster sizes: all `mean`, or geometric from about a quarter to four times of it."""
    if not unequal:
        return np.full(clusters, mean)
    spread = mean * np.exp(np.linspace(-1.3, 1.3, clusters))
    return np.maximum(1, np.round(spread)).astype(np.intp)


@dataclass(frozen=True, slots=True)
class Graded:
    """Differences with a standard deviation of 0.3 and this intra-cluster correlation."""

    sizes: NDArray[np.intp]
    correlation: float
    difference: float

    def draws(self, draw: np.random.Generator, repetitions: int) -> Iterator[tuple[Floats, Floats]]:
        within, between = 0.3 * (1 - self.correlation) ** 0.5, 0.3 * self.correlation**0.5
        n = int(self.sizes.sum())
        for _ in range(repetitions):
            effects = draw.normal(self.difference, between, len(self.sizes))
            base = draw.normal(0.0, 1.0, n)
            noise = draw.normal(0.0, within, n)
            yield base, base + np.repeat(effects, self.sizes) + noise


@dataclass(frozen=True, slots=True)
class Flipping:
    """Scores 0 or 1; each cluster has its own shares of (gained, lost, unchanged) from a Dirichlet
    distribution, so two items of one cluster agree with this correlation."""

    sizes: NDArray[np.intp]
    correlation: float
    shares: tuple[float, float, float]

    def draws(self, draw: np.random.Generator, repetitions: int) -> Iterator[tuple[Floats, Floats]]:
        """In every cluster the gained items stand first, then the lost ones."""
        ends = np.cumsum(self.sizes)
        place = np.arange(ends[-1]) - np.repeat(ends - self.sizes, self.sizes)
        for done in range(0, repetitions, BATCH):
            chances = self._chances(draw, min(BATCH, repetitions - done))
            for counts in draw.multinomial(self.sizes, chances):
                gained = np.repeat(counts[:, 0], self.sizes)
                lost = gained + np.repeat(counts[:, 1], self.sizes)
                base = ((place >= gained) & (place < lost)).astype(float)
                yield base, (place < gained).astype(float)

    def _chances(self, draw: np.random.Generator, repetitions: int) -> Floats:
        """[repetitions, clusters, 3]"""
        means = np.tile(self.shares, (repetitions, len(self.sizes), 1))
        if self.correlation == 0:
            return means
        weights = draw.gamma(means * (1 - self.correlation) / self.correlation)
        chances: Floats = weights / weights.sum(axis=2, keepdims=True)
        return chances
