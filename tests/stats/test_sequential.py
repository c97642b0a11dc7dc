"""The bound that holds at every look: coverage and power by simulation with known truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from strop.serve.canary.ratings import per_block
from strop.stats import sequential
from strop.stats.sequential import BETS, MEANS, Bound, expected_count


def crossing(
    canary: float, stable: float, block: int, looks: int, runs: int, seed: int
) -> np.ndarray:
    """After how many blocks each of `runs` simulated canaries is shown to be worse than 0;
    `looks + 1` where it never is. The wealth against a mean of 0, written out once more."""
    draw = np.random.default_rng(seed)
    log_wealth = np.zeros((runs, len(BETS)))
    found = np.full(runs, looks + 1)
    for look in range(looks):
        rated = (draw.random(runs) < canary) - draw.binomial(block, stable, runs) / block
        log_wealth += np.log1p(-BETS * rated[:, None])
        shown = np.logaddexp.reduce(log_wealth, axis=1) >= math.log(len(BETS) / 0.05)
        found = np.where(shown & (found > looks), look + 1, found)
    return found


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_a_canary_as_good_is_taken_back_in_at_most_5_percent_however_often_one_looks(
    share: float,
) -> None:
    found = crossing(0.6, 0.6, per_block(share), 3000, 2000, seed=1)
    # 0.05 promised; 2,000 runs tell a share to +-0.01
    assert (found <= 3000).mean() <= 0.05


def test_a_drop_of_ten_points_is_caught_within_1000_ratings_an_arm() -> None:
    found = crossing(0.5, 0.6, 1, 1000, 2000, seed=2)
    assert (found <= 1000).mean() >= 0.90
    assert np.median(found) < 500


def test_the_bound_agrees_with_the_wealth_against_zero() -> None:
    draw = np.random.default_rng(3)
    differences = (draw.random(400) < 0.4) * 1.0 - (draw.random(400) < 0.7)
    bound = Bound(0.05)
    log_wealth = np.zeros(len(BETS))
    for difference in differences:
        bound.add(float(difference))
        log_wealth += np.log1p(-BETS * difference)
        shown = np.logaddexp.reduce(log_wealth) >= math.log(len(BETS) / 0.05)
        assert not shown or bound.high <= 0  # for good, so that it may stay below afterwards
    assert bound.high < 0


@pytest.mark.parametrize("mean", [-0.3, 0.0, 0.25])
def test_both_bounds_hold_at_all_times(mean: float) -> None:
    missed_high = missed_low = 0
    for seed in range(60):
        draw = np.random.default_rng(seed)
        bound = Bound(0.05)
        for value in np.clip(draw.normal(mean, 0.4, 300), -1, 1):
            bound.add(float(value))
        truth = np.clip(np.random.default_rng(0).normal(mean, 0.4, 200_000), -1, 1).mean()
        missed_high += bound.high < truth
        missed_low += bound.low > truth
        assert bound.low <= (bound.mean or 0) <= bound.high
    # both only narrow, so that the last one is the tightest; 3 of 60 expected at most, 8 is 3 sd
    assert missed_high <= 8
    assert missed_low <= 8


def test_by_hand_with_one_bet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequential, "BETS", np.array([0.5]))
    bound = Bound(0.2)
    for _ in range(4):  # against 0: 1.5^4 = 5.06 >= 1/0.2, after three 3.4
        bound.add(-1.0)
    # W(m) = (1 + 0.5 (1 + m) / (1 - m))^4 reaches 5 at (1 + m) / (1 - m) = 2 (5^(1/4) - 1)
    ratio = 2 * (5**0.25 - 1)
    exact = (ratio - 1) / (ratio + 1)
    assert exact <= bound.high < exact + (MEANS[1] - MEANS[0])


def test_a_difference_outside_is_refused() -> None:
    with pytest.raises(ValueError, match="between -1 and 1"):
        Bound(0.05).add(1.5)


def test_the_expected_count_is_near_the_simulated_one() -> None:
    variance = 0.25 + 0.24
    found = crossing(0.5, 0.6, 1, 3000, 1000, seed=4)
    assert expected_count(-0.1, variance, 0.05) == pytest.approx(np.mean(found), rel=0.35)
