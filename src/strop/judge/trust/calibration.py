"""How far a judge agrees with people, beside how far people agree with one another."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.stats.clustered import number_clusters
from strop.stats.share import Share, share, wilson

RESAMPLES = 2000
BINS = 5
Label = Hashable
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Agreement:
    """`Agreement(observed=Share(0.72, 0.69, 0.75), kappa=Share(0.49, 0.44, 0.54), items=999)`: the
    share of items with the same label, and Cohen's kappa with its bootstrap interval."""

    observed: Share
    kappa: Share
    items: int


def agreement(
    one: Sequence[Label | None], other: Sequence[Label | None], clusters: Sequence[Hashable]
) -> Agreement:
    """Of two annotators on the items that both labelled; `clusters` are the items' prompts, which
    are resampled together (2,000 times, percentiles). Raises `ValueError` without such an item."""
    return _mean_agreement([(one, other)], clusters)


def human_ceiling(
    annotators: Sequence[Sequence[Label | None]], clusters: Sequence[Hashable]
) -> Agreement | None:
    """The mean over all pairs of people who labelled an item in common, `None` where there are no
    such people; no judge can be expected to agree with people more often than they agree with one
    another."""
    met = [
        (one, other) for one, other in combinations(annotators, 2)
        if any(a is not None and b is not None for a, b in zip(one, other, strict=True))
    ]  # fmt: skip
    return _mean_agreement(met, clusters) if met else None


def majority(annotators: Sequence[Sequence[Label | None]]) -> list[Label | None]:
    """The label that more than half of an item's annotators gave; `None` where there is none."""
    found: list[Label | None] = []
    for labels in zip(*annotators, strict=True):
        given = [label for label in labels if label is not None]
        most = max(set(given), key=given.count, default=None)
        found.append(most if given.count(most) * 2 > len(given) else None)
    return found


@dataclass(frozen=True, slots=True)
class Rates:
    """`Rates(sensitivity=Share(0.9, ...), specificity=Share(0.7, ...))`: how often the judge finds
    a win that people saw, and a loss."""

    sensitivity: Share
    specificity: Share


def rates(judged: Sequence[float], gold: Sequence[float]) -> Rates:
    """From verdicts and human labels of 1 and 0; ties (0.5) of the judge count as half right.

    Raises `ValueError` where the gold labels are of one class only, or hold a tie.
    """
    votes, truth = np.asarray(judged, dtype=float), np.asarray(gold, dtype=float)
    if set(truth.tolist()) != {0.0, 1.0}:
        raise ValueError("sensitivity and specificity need anchors of both classes, without ties")
    wins, losses = votes[truth == 1], votes[truth == 0]
    return Rates(
        wilson(float(wins.sum()), len(wins)), wilson(float((1 - losses).sum()), len(losses))
    )


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """`ReliabilityBin(confidence=0.83, right=Share(0.74, 0.62, 0.83), items=60)`: verdicts of about
    one confidence, and how many of them people share."""

    confidence: float
    right: Share
    items: int


@dataclass(frozen=True, slots=True)
class Reliability:
    """The bins from low to high confidence, and the expected calibration error: the mean distance
    of confidence and accuracy, weighted by items."""

    bins: tuple[ReliabilityBin, ...]
    error: float


def reliability(
    confidences: Sequence[float], right: Sequence[bool], clusters: Sequence[Hashable]
) -> Reliability:
    """The reliability curve in `BINS` bins of as many items each (equal confidences stay together).

    Naeini, Cooper, Hauskrecht 2015 (AAAI 29) define the error; bins of equal size as by Nixon et
    al. 2019 (arXiv 1904.01685), section 3. Raises `ValueError` without items.
    """
    if not confidences:
        raise ValueError("there are no verdicts")
    order = sorted(range(len(confidences)), key=lambda n: confidences[n])
    edges = np.unique(np.quantile(np.asarray(confidences), np.linspace(0, 1, BINS + 1)[1:-1]))
    cells = np.searchsorted(edges, np.asarray(confidences)[order], side="right")
    cuts = [0, *(np.flatnonzero(np.diff(cells)) + 1).tolist(), len(order)]
    bins = []
    for low, high in pairwise(cuts):
        held = order[low:high]
        hits = share([float(right[n]) for n in held], [clusters[n] for n in held])
        bins.append(ReliabilityBin(fmean(confidences[n] for n in held), hits, len(held)))
    distance = [abs(one.confidence - one.right.mean) * one.items for one in bins]
    return Reliability(tuple(bins), sum(distance) / len(order))


def _mean_agreement(
    pairs: Sequence[tuple[Sequence[Label | None], Sequence[Label | None]]],
    clusters: Sequence[Hashable],
) -> Agreement:
    tables = [_tables(one, other, clusters) for one, other in pairs]
    items = sum(int(table.sum()) for table in tables)
    if min(int(table.sum()) for table in tables) == 0:
        raise ValueError("no item was labelled by both")
    draw = np.random.default_rng(0)
    groups = len(tables[0])
    times = draw.multinomial(groups, np.full(groups, 1 / groups), size=RESAMPLES).astype(float)
    shares = [_interval(tables, times, of) for of in (_observed, _kappa)]
    return Agreement(shares[0], shares[1], items // len(pairs))


def _tables(
    one: Sequence[Label | None], other: Sequence[Label | None], clusters: Sequence[Hashable]
) -> Floats:
    """How often each pair of labels occurs in each cluster, [C, K, K]."""
    index = number_clusters(clusters)
    labels = {label: n for n, label in enumerate(sorted({*one, *other} - {None}, key=str))}
    table = np.zeros((int(index.max()) + 1, len(labels), len(labels)))
    for cluster, a, b in zip(index.tolist(), one, other, strict=True):
        if a is not None and b is not None:
            table[cluster, labels[a], labels[b]] += 1
    return table


def _interval(tables: Sequence[Floats], times: Floats, of: Callable[[Floats], Any]) -> Share:
    estimate = fmean(float(of(table.sum(0))) for table in tables)
    # a resample without any item that both labelled says nothing, and is left out
    with np.errstate(invalid="ignore"):
        drawn = np.mean([of(np.tensordot(times, table, 1)) for table in tables], axis=0)
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Share(estimate, float(low), float(high))


def _observed(table: Floats) -> Any:
    return np.trace(table, axis1=-2, axis2=-1) / table.sum((-2, -1))


def _kappa(table: Floats) -> Any:
    total = table.sum((-2, -1))
    chance = (table.sum(-1) * table.sum(-2)).sum(-1) / total**2
    full = chance >= 1 - 1e-12
    return np.where(full, 1.0, (_observed(table) - chance) / np.where(full, 1.0, 1 - chance))
