"""Agreement of annotators beyond chance: pure functions of their labels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Label = Hashable
Scale = Literal["nominal", "ordinal", "interval"]
Units = Sequence[Sequence[Label | None]]
"""A row for every item with a label for every annotator; `None` for a missing label."""

Floats = NDArray[np.float64]


def observed_agreement(one: Sequence[Label], other: Sequence[Label]) -> float:
    """Share of items with the same label: `observed_agreement("aab", "abb") == 2 / 3`."""
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one)


def cohen_kappa(one: Sequence[Label], other: Sequence[Label]) -> float:
    """Agreement of two annotators beyond chance, 1 for full, 0 for chance.

        kappa = (p_o - p_e) / (1 - p_e),   p_e = sum over labels of p_one(label) p_other(label)

    Cohen 1960, Educational and Psychological Measurement 20:37-46, equation 1. Two annotators who
    both give one and the same label to all items agree fully: 1. Raises `ValueError` without items.
    """
    if not one or len(one) != len(other):
        raise ValueError(f"expected two lists of one length >= 1, got {len(one)} and {len(other)}")
    n, mine, yours = len(one), Counter(one), Counter(other)
    chance = sum(mine[label] * yours[label] for label in mine) / n**2
    return 1.0 if chance == 1 else (observed_agreement(one, other) - chance) / (1 - chance)


def fleiss_kappa(units: Units) -> float:
    """Agreement of several annotators beyond chance, for items with one number of labels each.

        kappa = (P - P_e) / (1 - P_e),   P = mean over items of sum_j n_ij (n_ij - 1) / (m (m - 1))

    with n_ij labels j of item i, m labels an item, and P_e the sum of squared shares of the labels.
    Fleiss 1971, Psychological Bulletin 76:378-382, equations 1-5. Raises `ValueError` where labels
    are missing (`krippendorff_alpha` takes those) or are fewer than two an item.
    """
    counts = [Counter(label for label in unit if label is not None) for unit in units]
    sizes = {count.total() for count in counts}
    if len(sizes) != 1 or min(sizes) < 2:
        raise ValueError("Fleiss' kappa needs the same number of labels, at least 2, of every item")
    m, n = sizes.pop(), len(counts)
    together = sum(k * (k - 1) for count in counts for k in count.values()) / (n * m * (m - 1))
    totals: Counter[Label] = sum(counts, Counter())
    chance = sum((total / (n * m)) ** 2 for total in totals.values())
    return 1.0 if chance == 1 else (together - chance) / (1 - chance)


def krippendorff_alpha(units: Units, scale: Scale = "nominal") -> float | None:
    """1 - observed disagreement / disagreement expected by chance; labels may be missing.

        alpha = 1 - (n - 1) sum_{c<k} o_ck d_ck / sum_{c<k} n_c n_k d_ck

    with the coincidences o_ck, a pair of labels in an item of m labels counting 1 / (m - 1), and d
    the squared difference of two labels on the scale. Krippendorff 2011, "Computing Krippendorff's
    Alpha-Reliability", section D; he calls data with alpha of at least 0.8 reliable, and of at
    least 0.667 good for tentative conclusions. `ordinal` and `interval` need numbers as labels.
    `None` where no item has two labels; 1.0 where all labels are the same.
    """
    return alpha_of_patterns(Counter(map(tuple, units)), scale)


def alpha_of_patterns(
    patterns: Mapping[tuple[Label | None, ...], int], scale: Scale = "nominal"
) -> float | None:
    """`krippendorff_alpha` of items counted by their labels: `{("a", "b", None): 12}`."""
    pairable = _pairable(patterns)
    if not pairable:
        return None
    order = str if scale == "nominal" else _number
    labels = sorted({label for given in pairable for label in given}, key=order)
    place = {label: number for number, label in enumerate(labels)}
    coincidences = np.zeros((len(labels), len(labels)))
    for given, count in pairable.items():
        held = np.bincount([place[label] for label in given], minlength=len(labels)).astype(float)
        coincidences += count * (np.outer(held, held) - np.diag(held)) / (len(given) - 1)
    totals = coincidences.sum(axis=1)
    distance = _DISTANCES[scale](labels, totals)
    expected = float((np.outer(totals, totals) * distance).sum())
    if expected == 0:
        return 1.0
    return 1 - (float(totals.sum()) - 1) * float((coincidences * distance).sum()) / expected


def _pairable(
    patterns: Mapping[tuple[Label | None, ...], int],
) -> Counter[tuple[Label, ...]]:
    """Items with at least two labels, without the missing ones."""
    found: Counter[tuple[Label, ...]] = Counter()
    for labels, count in patterns.items():
        given = tuple(label for label in labels if label is not None)
        if len(given) > 1:
            found[given] += count
    return found


def _number(label: Label) -> float:
    return float(str(label))


def _nominal(labels: Sequence[Label], totals: Floats) -> Floats:
    return 1.0 - np.eye(len(labels))


def _ordinal(labels: Sequence[Label], totals: Floats) -> Floats:
    """How many labels lie between two, those at the ends by half, squared."""
    ranks = np.cumsum(totals) - totals / 2
    distances: Floats = (ranks[:, None] - ranks[None, :]) ** 2
    return distances


def _interval(labels: Sequence[Label], totals: Floats) -> Floats:
    values = np.array([_number(label) for label in labels])
    distances: Floats = (values[:, None] - values[None, :]) ** 2
    return distances


_DISTANCES = {"nominal": _nominal, "ordinal": _ordinal, "interval": _interval}


def label_noise(agreement: float, labels: int) -> float:
    """The share of wrong labels that follows from the agreement of two annotators.

    Each annotator independently gives the true one of `labels` labels with chance 1 - e, and each
    other label with chance e / (labels - 1): the model of Dawid and Skene 1979 (Applied Statistics
    28:20-28) with one error rate for all. They then agree with chance

        p = (1 - e)^2 + e^2 / (labels - 1),   so e = (1 - sqrt(1 - k (1 - p))) / k

    with k = labels / (labels - 1). `label_noise(0.82, 2) == 0.1`. At or below the agreement of
    guessing, e is that of guessing. Errors that annotators share are not detected, so the true
    share is higher.
    """
    if labels < 2:
        return 0.0
    k = labels / (labels - 1)
    return (1 - math.sqrt(max(0.0, 1 - k * (1 - agreement)))) / k


def majority_noise(noise: float, annotators: int) -> float:
    """The share of wrong labels if each label is the majority of `annotators` with two labels:
    `majority_noise(0.1, 3) == 0.1**3 + 3 * 0.1**2 * 0.9`. Ties count half."""
    wrong = [
        math.comb(annotators, k) * noise**k * (1 - noise) ** (annotators - k)
        for k in range(annotators + 1)
    ]
    half = annotators / 2
    return sum(p * (1.0 if k > half else 0.5 if k == half else 0.0) for k, p in enumerate(wrong))
