"""Unbiased estimators of accuracy with k answers, from the n answers that were drawn of an item.

Each estimator is the exact mean over all k-subsets of the n draws, so it is unbiased for k fresh
draws; none of them lists the subsets. `right_N` says which draws are right.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray


def pass_at(right_N: Sequence[bool], k: int) -> float:
    """Chance that one of k answers is right: 1 - C(n - c, k) / C(n, k) for c right ones.

    Chen et al. 2021 (arXiv:2107.03374), equation 1. Picking that answer takes knowledge of the
    right one.
    """
    n, wrong = len(right_N), len(right_N) - sum(right_N)
    _expect(k, n)
    return 1.0 - math.comb(wrong, k) / math.comb(n, k)


def best_at(rewards_N: Sequence[float | None], right_N: Sequence[bool], k: int) -> float:
    """Chance that the answer with the highest reward among k is right; ties share equally.

    An answer without a reward (`None`) ranks below all others.
    """
    _expect(k, len(right_N))
    ranks = [-math.inf if reward is None else reward for reward in rewards_N]
    chance, below = 0.0, 0
    for rank in sorted(set(ranks)):
        group = [ok for ok, own in zip(right_N, ranks, strict=True) if own == rank]
        here = below + len(group)
        wins = math.comb(here, k) - math.comb(below, k)
        chance += wins / math.comb(len(right_N), k) * sum(group) / len(group)
        below = here
    return chance


def majority_at(
    votes_N: Sequence[Hashable | None], right_N: Sequence[bool], ks: Sequence[int]
) -> list[float]:
    """Chance that the commonest answer among k is right, for every k; ties share equally.

    Equal votes are one answer. `None` could not be read and does not vote; without votes the chance
    is 0. If a verifier calls some texts with the same vote right and others wrong, that answer
    counts as the share of right ones.

    Subsets are counted, not listed: for each winning count m, the generating function over the
    answers of (votes cast, answers that reach m); O(n k^2 log k) in all.
    """
    n, most = len(votes_N), max(ks)
    _expect(most, n)
    groups: dict[Hashable, list[bool]] = {}
    for vote, ok in zip(votes_N, right_N, strict=True):
        if vote is not None:
            groups.setdefault(vote, []).append(ok)
    silent = n - sum(map(len, groups.values()))
    sizes = [len(group) for group in groups.values()]
    worth = [sum(group) / len(group) for group in groups.values()]
    won_K = np.zeros(most + 1)  # by votes cast
    for m in range(1, min(most, max(sizes, default=0)) + 1):
        won_K += _won_with(m, sizes, worth, most)
    won = won_K.tolist()
    return [
        math.fsum(won[s] * math.comb(silent, k - s) for s in range(1, k + 1)) / math.comb(n, k)
        for k in ks
    ]


def _won_with(
    m: int, sizes: Sequence[int], worth: Sequence[float], most: int
) -> NDArray[np.float64]:
    """Summed credit of the winners with exactly m votes, by votes cast, over all choices of votes.

    `ways_KT` counts choices with T answers at m votes and no answer above; `credit_KT` sums the
    credit of those T over the same choices.
    """
    ties = min(len(sizes), most // m)
    ways_KT, credit_KT = np.zeros((most + 1, ties + 1)), np.zeros((most + 1, ties + 1))
    ways_KT[0, 0] = 1.0
    for size, credit in zip(sizes, worth, strict=True):
        new_ways_KT, new_credit_KT = np.zeros_like(ways_KT), np.zeros_like(credit_KT)
        for votes in range(min(size, m - 1, most) + 1):
            times = math.comb(size, votes)
            new_ways_KT[votes:] += times * ways_KT[: most + 1 - votes]
            new_credit_KT[votes:] += times * credit_KT[: most + 1 - votes]
        if size >= m:
            times = math.comb(size, m)
            before = ways_KT[: most + 1 - m, :-1]
            new_ways_KT[m:, 1:] += times * before
            new_credit_KT[m:, 1:] += times * (credit_KT[: most + 1 - m, :-1] + credit * before)
        ways_KT, credit_KT = new_ways_KT, new_credit_KT
    shared_K: NDArray[np.float64] = (credit_KT[:, 1:] / np.arange(1, ties + 1)).sum(1)
    return shared_K


def affordable(curve: Sequence[tuple[float, float]], tokens: float) -> float | None:
    """The accuracy that a curve of (tokens, accuracy) reaches with at most `tokens` tokens an item.

    Linear in log tokens between the points, the last accuracy beyond them, `None` if even the first
    point costs more: `affordable([(10, 0.2), (40, 0.4)], 20) == 0.3`.
    """
    points = sorted(curve)
    if tokens < points[0][0]:
        return None
    spent, reached = zip(*points, strict=True)
    return float(np.interp(math.log(tokens), np.log(spent), reached))


def _expect(k: int, n: int) -> None:
    if not 1 <= k <= n:
        raise ValueError(f"k must be between 1 and the {n} answers drawn, got {k}")
