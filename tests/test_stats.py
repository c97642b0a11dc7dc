"""Statistics against published values, scipy, and simulations with known truth."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from strop.evals.stats import mcnemar, noninferiority, superiority, t_cdf, t_quantile


def paired(both: int, gained: int, lost: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """(base, candidate) with these counts."""
    base = [1] * both + [0] * gained + [1] * lost + [0] * neither
    candidate = [1] * both + [1] * gained + [0] * lost + [0] * neither
    return np.array(base, float), np.array(candidate, float)


class TestTango:
    def test_published_interval(self) -> None:
        """Airway hyper-responsiveness before and after transplantation, 21 children:

        difference -0.286, Tango interval (-0.517, -0.026): Fagerland, Lydersen and Laake 2014,
        Statistics in Medicine 33:2850-2875, tables I and V.
        """
        base, candidate = paired(both=1, gained=1, lost=7, neither=12)
        found = superiority(base, candidate)
        assert found.method == "tango"
        assert found.estimate == pytest.approx(-6 / 21)
        assert found.low == pytest.approx(-0.517, abs=5e-4)
        assert found.high == pytest.approx(-0.026, abs=5e-4)

    def test_no_flips_is_not_certainty(self) -> None:
        """With no discordant pair the bound is z^2 / (n + z^2) (Tango 1998, section 4)."""
        base, candidate = paired(both=50, gained=0, lost=0, neither=0)
        found = noninferiority(base, candidate, margin=0.05)
        z2 = 1.959964**2
        assert (found.low, found.high) == pytest.approx((-z2 / (50 + z2), z2 / (50 + z2)), abs=1e-6)
        assert found.verdict == "inconclusive"

    def test_swapping_sides_mirrors_the_interval(self) -> None:
        base, candidate = paired(30, 12, 5, 20)
        there, back = superiority(base, candidate), superiority(candidate, base)
        assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-9)

    @given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(2, 30))
    def test_interval_holds_the_estimate_and_stays_in_range(
        self, both: int, gained: int, lost: int, neither: int
    ) -> None:
        found = superiority(*paired(both, gained, lost, neither))
        assert -1 <= found.low <= found.estimate + 1e-9 <= found.high + 2e-9 <= 1 + 3e-9

    @pytest.mark.parametrize(("n", "difference"), [(60, 0.0), (60, -0.1), (400, 0.05)])
    def test_covers_the_truth_in_95_percent(self, n: int, difference: float) -> None:
        draw = np.random.default_rng(1)
        gain = 0.1 + max(difference, 0)
        lose = gain - difference
        covered = 0
        for _ in range(1000):
            counts = draw.multinomial(n, [0.4, gain, lose, 0.6 - gain - lose])
            found = superiority(*paired(*counts))
            covered += found.low <= difference <= found.high
        assert covered / 1000 >= 0.95 - 3 * (0.05 * 0.95 / 1000) ** 0.5


class TestClusterT:
    def test_single_items_are_the_paired_t_interval(self) -> None:
        draw = np.random.default_rng(0)
        base, candidate = draw.random(30), draw.random(30)
        found = superiority(base, candidate)
        expected = scipy.stats.ttest_rel(candidate, base).confidence_interval(0.95)
        assert found.method == "cluster-t"
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))

    def test_p_value_is_scipys(self) -> None:
        draw = np.random.default_rng(3)
        base, candidate = draw.random(25), draw.random(25) + 0.1
        expected = scipy.stats.ttest_rel(candidate, base, alternative="greater").pvalue
        assert superiority(base, candidate).p_value == pytest.approx(expected)

    def test_clusters_widen_an_interval_of_repeated_items(self) -> None:
        """Every item three times is no more evidence than once."""
        draw = np.random.default_rng(2)
        base, candidate = draw.random(20), draw.random(20)
        once = superiority(base, candidate)
        thrice = superiority(np.tile(base, 3), np.tile(candidate, 3), clusters=list(range(20)) * 3)
        assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))
        naive = superiority(np.tile(base, 3), np.tile(candidate, 3))
        assert naive.high - naive.low < 0.7 * (once.high - once.low)

    def test_covers_the_truth_with_clustered_samples(self) -> None:
        draw = np.random.default_rng(4)
        covered = 0
        labels = np.repeat(np.arange(40), 4)
        for _ in range(1000):
            effect = np.repeat(draw.normal(0.1, 0.3, 40), 4)
            base = draw.normal(0, 0.2, 160)
            candidate = base + effect + draw.normal(0, 0.1, 160)
            found = superiority(base, candidate, clusters=labels.tolist())
            covered += found.low <= 0.1 <= found.high
        assert abs(covered / 1000 - 0.95) <= 3 * (0.05 * 0.95 / 1000) ** 0.5 + 0.005

    def test_one_cluster_proves_nothing(self) -> None:
        found = superiority([0.1, 0.2], [0.9, 0.8], clusters=["a", "a"])
        assert found.verdict == "inconclusive"


class TestVerdicts:
    def test_three_answers(self) -> None:
        better, worse = paired(200, 100, 10, 90), paired(200, 10, 100, 90)
        same_few, same_many = paired(10, 1, 1, 8), paired(2000, 20, 20, 1960)
        assert superiority(*better).verdict == "pass"
        assert superiority(*worse).verdict == "regressed"
        assert noninferiority(*worse, margin=0.03).verdict == "regressed"
        assert noninferiority(*same_few, margin=0.03).verdict == "inconclusive"
        assert noninferiority(*same_many, margin=0.03).verdict == "pass"
        assert superiority(*same_many).verdict == "inconclusive"

    def test_a_harmful_candidate_passes_in_less_than_alpha(self) -> None:
        """Truth exactly at the margin: the gate may err in 2.5 % of runs, not more."""
        draw = np.random.default_rng(5)
        passed = sum(
            noninferiority(
                *paired(*draw.multinomial(500, [0.5, 0.05, 0.08, 0.37])), margin=0.03
            ).verdict == "pass"
            for _ in range(1000)
        )  # fmt: skip
        assert passed / 1000 <= 0.025 + 3 * (0.025 * 0.975 / 1000) ** 0.5

    def test_n_needed_gives_the_promised_power(self) -> None:
        base, candidate = paired(40, 6, 6, 28)
        found = noninferiority(base, candidate, margin=0.05)
        assert found.verdict == "inconclusive"
        assert found.n_needed is not None
        draw = np.random.default_rng(6)
        passed = sum(
            noninferiority(
                *paired(*draw.multinomial(found.n_needed, [0.5, 0.075, 0.075, 0.35])), margin=0.05
            ).verdict == "pass"
            for _ in range(500)
        )  # fmt: skip
        assert passed / 500 == pytest.approx(0.8, abs=0.07)

    def test_n_needed_is_none_where_no_number_would_do(self) -> None:
        assert superiority(*paired(10, 2, 4, 10)).n_needed is None

    @pytest.mark.parametrize(
        ("base", "candidate", "message"),
        [
            ([1.0], [1.0], "length >= 2"),
            ([1, 0], [1], "one length"),
            ([1, 0], [1, np.nan], "finite"),
        ],
    )
    def test_bad_input(self, base: list[float], candidate: list[float], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            superiority(base, candidate)
        with pytest.raises(ValueError, match="margin"):
            noninferiority([1, 0], [1, 0], margin=0)


@pytest.mark.parametrize("freedom", [1, 2, 5, 30, 399, 5000])
def test_t_distribution_is_scipys(freedom: int) -> None:
    for t in (-3.0, -0.5, 0.0, 1.0, 2.5):
        assert t_cdf(t, freedom) == pytest.approx(scipy.stats.t.cdf(t, freedom), abs=1e-9)
    expected = scipy.stats.t.ppf(0.975, freedom)
    assert t_quantile(0.975, freedom) == pytest.approx(expected, rel=1e-6)


def test_mcnemar_is_the_exact_binomial() -> None:
    base, candidate = paired(5, 3, 11, 2)
    assert mcnemar(base, candidate) == pytest.approx(scipy.stats.binomtest(3, 14).pvalue)
    assert mcnemar(*paired(5, 0, 0, 5)) == 1.0
