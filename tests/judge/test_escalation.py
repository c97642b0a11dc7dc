"""Selective judging: bounds by another library, the guarantee by simulation, cascades by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from strop.judge.panel.escalation import Threshold, fewest_items, most_wrong, threshold


@pytest.mark.parametrize(("misses", "n"), [(0, 30), (3, 50), (40, 200), (30, 30)])
def test_the_bound_is_clopper_pearsons(misses: int, n: int) -> None:
    expected = binomtest(misses, n).proportion_ci(0.8, method="exact").high
    assert most_wrong(misses, n, 0.1) == pytest.approx(float(expected), abs=1e-6)


def test_fewest_items_is_where_no_miss_is_enough() -> None:
    n = fewest_items(0.9, 0.1)
    assert most_wrong(0, n, 0.1) <= 0.1 < most_wrong(0, n - 1, 0.1)


def test_the_promised_agreement_holds() -> None:
    """A judge that is right as often as it says, cut at 90 %: of 300 draws, at most a tenth (and
    what chance adds) keep verdicts that agree less often."""
    broken, kept = 0, []
    for seed in range(300):
        draw = np.random.default_rng(seed)
        confidence = draw.uniform(0.5, 1.0, 500)
        found = threshold(confidence.tolist(), (draw.random(500) < confidence).tolist())
        # the mean confidence above the threshold is the true agreement there
        broken += found is not None and (1 + found.confidence) / 2 < 0.9
        kept.append(0.0 if found is None else found.kept)
    assert broken / 300 <= 0.1 + 2 * np.sqrt(0.1 * 0.9 / 300)
    assert np.mean(kept) > 0.2  # at best 0.4
    assert np.mean(np.array(kept) == 0) < 0.2


def test_a_judge_at_chance_keeps_nothing() -> None:
    draw = np.random.default_rng(0)
    right = (draw.random(400) < 0.5).tolist()
    assert threshold(draw.uniform(0.5, 1.0, 400).tolist(), right) is None
    assert threshold([0.9] * 20, [True] * 20) is None  # too few to show 90 %
    assert threshold([0.9] * 30, [True] * 30) == Threshold(0.9, 1.0, 1.0, 0.9)
    with pytest.raises(ValueError, match="no labelled verdicts"):
        threshold([], [])
