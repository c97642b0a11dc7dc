"""Votes of several judges: majority, weights learnt from anchors, Dawid and Skene's model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

ROUNDS, SETTLED = 500, 1e-10
"""Rounds of expectation-maximisation, and the change of the posteriors that ends it."""


def weights(verdicts: ArrayLike, gold: ArrayLike) -> Floats:
    """What each judge's vote is worth: the log-odds of being right, [J].

        w_j = log(a_j / (1 - a_j)),   a_j = (right_j + 1/2) / (labelled_j + 1)

    The best weights of independent judges (Nitzan and Paroush 1982, International Economic Review
    23:289-297, theorem 1), with half an anchor added on both sides so that 30 of 30 is not
    certainty. A judge that is wrong more often than right has a negative weight: its vote counts
    for the other side. `verdicts` is [J, n] of 0 and 1 (NaN for a missing verdict), `gold` [n] of 0
    and 1. Raises `ValueError` for anchors of one class only (a judge that always answers the same
    would look perfect), arrays that do not pair, or other values.
    """
    votes, truth = _checked(verdicts, gold)
    given = ~np.isnan(votes)
    right = ((votes == truth) & given).sum(1)
    return np.array([
        log_odds(hits / max(1, labelled), labelled)
        for hits, labelled in zip(right.tolist(), given.sum(1).tolist(), strict=True)
    ])  # fmt: skip


def log_odds(accuracy: float, labelled: int) -> float:
    """The weight of a judge that is right on this share of so many anchors, with half an anchor
    added on both sides: `log_odds(0.75, 100) == 1.086...`."""
    kept = (accuracy * labelled + 0.5) / (labelled + 1)
    return math.log(kept / (1 - kept))


def weighted_vote(verdicts: ArrayLike, weight_J: ArrayLike) -> Floats:
    """The panel's verdicts, [n]: 1, 0, or 0.5 where the votes balance (as they do where nobody
    voted). `weighted_vote(v, numpy.ones(len(v)))` is the majority."""
    votes = np.asarray(verdicts, dtype=float)
    signed = np.where(np.isnan(votes), 0.0, 2 * votes - 1)
    total = np.asarray(weight_J, dtype=float) @ signed
    found: Floats = np.where(np.isclose(total, 0.0), 0.5, total > 0)
    return found


@dataclass(frozen=True, slots=True)
class DawidSkene:
    """Every item's chance that its truth is 1, every judge's error rates, and the share of 1."""

    chance_n: Floats
    sensitivity_J: Floats
    specificity_J: Floats
    prevalence: float


def dawid_skene(verdicts: ArrayLike, anchors: ArrayLike) -> DawidSkene:
    """Truth and error rates together, with the truth of the anchors held fixed.

    Dawid and Skene 1979, Applied Statistics 28:20-28, by expectation-maximisation from the
    majority, for verdicts of 0 and 1; one pseudo-verdict of each kind keeps rates off 0 and 1.
    `anchors` is [n]: 0 or 1 where the truth is known, NaN elsewhere.

    Without anchors the model finds what the judges *share*, and judges share errors: on pairs made
    to mislead them it is worse than the best judge (docs/judges.md). So `ValueError` is raised
    where no anchor is given, or anchors of one class only.
    """
    votes = np.asarray(verdicts, dtype=float)
    known = np.asarray(anchors, dtype=float)
    fixed = ~np.isnan(known)
    _checked(votes[:, fixed], known[fixed])
    return _maximised(votes, known, fixed)


def _maximised(votes: Floats, known: Floats, fixed: NDArray[np.bool_]) -> DawidSkene:
    given = ~np.isnan(votes)
    ones, zeros = np.where(given, votes, 0.0), np.where(given, 1 - votes, 0.0)
    chance = np.divide(
        ones.sum(0), given.sum(0), out=np.full(votes.shape[1], 0.5), where=given.any(0)
    )
    chance = np.where(fixed, known, chance)
    for _ in range(ROUNDS):
        sensitivity = (ones @ chance + 1) / (given @ chance + 2)
        specificity = (zeros @ (1 - chance) + 1) / (given @ (1 - chance) + 2)
        prevalence = (chance.sum() + 1) / (len(chance) + 2)
        likely_1 = np.log(prevalence) + np.log(sensitivity) @ ones + np.log1p(-sensitivity) @ zeros
        likely_0 = (
            np.log1p(-prevalence) + np.log1p(-specificity) @ ones + np.log(specificity) @ zeros
        )
        new = np.where(fixed, known, 1 / (1 + np.exp(np.clip(likely_0 - likely_1, -700, 700))))
        moved, chance = float(np.abs(new - chance).max(initial=0.0)), new
        if moved < SETTLED:
            break
    return DawidSkene(chance, sensitivity, specificity, float(prevalence))


def _checked(verdicts: ArrayLike, gold: ArrayLike) -> tuple[Floats, Floats]:
    votes, truth = np.asarray(verdicts, dtype=float), np.asarray(gold, dtype=float)
    if votes.ndim != 2 or truth.ndim != 1 or votes.shape[1] != len(truth):
        raise ValueError(f"expected verdicts [J, n] and gold [n], got {votes.shape}, {truth.shape}")
    if not np.isin(votes[~np.isnan(votes)], (0.0, 1.0)).all() or not np.isin(truth, (0, 1)).all():
        raise ValueError("verdicts and gold have to be 0 or 1 (NaN for a missing verdict)")
    if len(set(truth.tolist())) < 2:
        raise ValueError("the anchors are of one class only: add some of the other")
    return votes, truth
