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
from strop.stats.share import Share, share

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
    both = sum(a is not None and b is not None for a, b in zip(one, other, strict=True))
    if not both:
        raise ValueError("no item was labelled by both")
    return _pooled_agreement([(one, other)], clusters, both)


def human_ceiling(
    annotators: Sequence[Sequence[Label | None]], clusters: Sequence[Hashable]
) -> Agreement | None:
    """Of all people with one another, over every couple of labels that an item has; `None` where no
    item was labelled by two. No judge can be expected to agree with people more often than they
    agree with one another."""
    couples = list(combinations(annotators, 2))
    given = [[one is not None for one in labels] for labels in zip(*annotators, strict=True)]
    common = sum(sum(labels) > 1 for labels in given)
    return _pooled_agreement(couples, clusters, common) if common else None


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


def rates(judged: Sequence[float], gold: Sequence[float], clusters: Sequence[Hashable]) -> Rates:
    """From verdicts and human labels of 1 and 0; ties (0.5) of the judge count as half right.

    Raises `ValueError` where the gold labels are of one class only, or hold a tie.
    """
    votes, truth = np.asarray(judged, dtype=float), np.asarray(gold, dtype=float)
    if set(truth.tolist()) != {0.0, 1.0}:
        raise ValueError("sensitivity and specificity need anchors of both classes, without ties")
    of = list(clusters)
    won, lost = (np.flatnonzero(truth == side).tolist() for side in (1, 0))
    return Rates(
        share(votes[won].tolist(), [of[n] for n in won]),
        share((1 - votes[lost]).tolist(), [of[n] for n in lost]),
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


def _pooled_agreement(
    couples: Sequence[tuple[Sequence[Label | None], Sequence[Label | None]]],
    clusters: Sequence[Hashable],
    items: int,
) -> Agreement:
    """From the labels of all couples in one table."""
    table = _table(couples, clusters)
    draw = np.random.default_rng(0)
    groups = len(table)
    times = draw.multinomial(groups, np.full(groups, 1 / groups), size=RESAMPLES).astype(float)
    return Agreement(_interval(table, times, _observed), _interval(table, times, _kappa), items)


def _table(
    couples: Sequence[tuple[Sequence[Label | None], Sequence[Label | None]]],
    clusters: Sequence[Hashable],
) -> Floats:
    """How often each pair of labels occurs in each cluster, [C, K, K]; clusters without one are
    left out."""
    index = number_clusters(clusters).tolist()
    known = {label for couple in couples for one in couple for label in one} - {None}
    labels = {label: n for n, label in enumerate(sorted(known, key=str))}
    table = np.zeros((max(index) + 1, len(labels), len(labels)))
    for one, other in couples:
        for cluster, a, b in zip(index, one, other, strict=True):
            if a is not None and b is not None:
                table[cluster, labels[a], labels[b]] += 1
    found: Floats = table[table.sum((1, 2)) > 0]
    return found


def _interval(table: Floats, times: Floats, of: Callable[[Floats], Any]) -> Share:
    low, high = np.quantile(of(np.tensordot(times, table, 1)), [0.025, 0.975])
    return Share(float(of(table.sum(0))), float(low), float(high))


def _observed(table: Floats) -> Any:
    return np.trace(table, axis1=-2, axis2=-1) / table.sum((-2, -1))


def _kappa(table: Floats) -> Any:
    total = table.sum((-2, -1))
    chance = (table.sum(-1) * table.sum(-2)).sum(-1) / total**2
    full = chance >= 1 - 1e-12
    return np.where(full, 1.0, (_observed(table) - chance) / np.where(full, 1.0, 1 - chance))
