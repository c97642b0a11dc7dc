"""Paired comparisons against published values, independent oracles, and planted truths."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from evidence.planted import Flipping, Graded, shares, sizes
from strop.errors import MissingEvidenceError
from strop.stats.clustered import MeanEstimate, number_clusters
from strop.stats.compare import noninferiority, superiority, weigh
from strop.stats.student import t_cdf, t_quantile
from strop.stats.tango import FlipCounts, power

Z = 1.959963985


def paired(both: int, gained: int, lost: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """(base, candidate) with these counts."""
    base = [1] * both + [0] * gained + [1] * lost + [0] * neither
    candidate = [1] * both + [1] * gained + [0] * lost + [0] * neither
    return np.array(base, float), np.array(candidate, float)


def at_most(share: float, repetitions: int) -> float:
    """What a rate of `share` is seen as in three standard errors."""
    return share + 3 * math.sqrt(share * (1 - share) / repetitions)


def score_statistic(gained: int, lost: int, n: int, difference: float) -> float:
    """Tango's statistic with the nuisance share found by maximising the likelihood numerically."""

    def unlikely(lost_share: float) -> float:
        chances = lost_share + difference, lost_share, 1 - 2 * lost_share - difference
        counts = gained, lost, n - gained - lost
        return -sum(k * math.log(p) for k, p in zip(counts, chances, strict=True) if k)

    ends = max(0.0, -difference) + 1e-13, (1 - difference) / 2 - 1e-13
    q = scipy.optimize.minimize_scalar(unlikely, bounds=ends, options={"xatol": 1e-14}).x
    variance = n * (2 * q + difference - difference**2)
    return float((gained - lost - n * difference) / math.sqrt(variance))


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
        bound = Z**2 / (50 + Z**2)
        assert (found.low, found.high) == pytest.approx((-bound, bound), abs=1e-6)
        assert found.verdict == "inconclusive"
        # the bound is the margin at z^2 (1 - m) / m = 73 items
        assert found.n_needed == pytest.approx(Z**2 * 0.95 / 0.05, abs=1)

    @pytest.mark.parametrize(("gained", "lost", "n"), [(3, 9, 60), (1, 6, 21), (20, 11, 400)])
    def test_ends_by_numerical_likelihood(self, gained: int, lost: int, n: int) -> None:
        found = superiority(*paired(n - gained - lost, gained, lost, 0))
        assert score_statistic(gained, lost, n, found.low) == pytest.approx(Z, abs=1e-4)
        assert score_statistic(gained, lost, n, found.high) == pytest.approx(-Z, abs=1e-4)
        tested = superiority(*paired(n - gained - lost, gained, lost, 0), min_gain=0.02)
        tail = scipy.stats.norm.sf(score_statistic(gained, lost, n, 0.02))
        assert tested.p_value == pytest.approx(tail, rel=1e-4)

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
        counts = draw.multinomial(n, shares(0.2 + abs(difference), difference), size=1000)
        missed = sum(
            not low <= difference <= high
            for low, high in (FlipCounts(g, lost, n).interval(0.05) for g, lost, _ in counts)
        )
        assert missed / 1000 <= at_most(0.05, 1000)


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

    @pytest.mark.parametrize("unequal", [False, True])
    def test_keeps_its_level_with_clusters(self, unequal: bool) -> None:
        planted = Graded(sizes(12, 6, unequal), correlation=0.5, difference=-0.03)
        index = np.repeat(np.arange(12), planted.sizes)
        p_values = [
            weigh(base, candidate, index)[1].p_value(-0.03)
            for base, candidate in planted.draws(np.random.default_rng(4), 3000)
        ]
        for tail in (np.less(p_values, 0.025), np.greater(p_values, 0.975)):
            assert 0.015 <= tail.mean() <= at_most(0.03, 3000)

    @pytest.mark.parametrize("clusters", [["a", "a", "b", "b", "c", "d"], [0] * 6])
    def test_fewer_than_five_clusters_show_nothing(self, clusters: list[object]) -> None:
        base, candidate = [0.1, 0.2, 0.3, 0.2, 0.1, 0.4], [0.9, 0.8, 0.9, 0.7, 0.8, 0.9]
        with pytest.raises(MissingEvidenceError, match=r"(?s)clusters.*fix: measure items of"):
            superiority(base, candidate, clusters=clusters)
        assert MissingEvidenceError.exit_code == 12

    def test_items_that_are_their_own_clusters_are_not_grouped(self) -> None:
        alone = noninferiority([1, 0, 1], [1, 1, 1], margin=0.5, clusters=["x", "y", "z"])
        assert alone == noninferiority([1, 0, 1], [1, 1, 1], margin=0.5)


class TestFewChanges:
    def test_no_change_among_clusters_is_no_change_among_as_many_items(self) -> None:
        base = np.tile([1.0, 0.0, 1.0, 1.0], 20)
        found = noninferiority(base, base, margin=0.05, clusters=np.repeat(np.arange(20), 4))
        alone = noninferiority(np.ones(20), np.ones(20), margin=0.05)
        assert found.method == "tango of clusters"
        assert (found.low, found.high) == pytest.approx((alone.low, alone.high))
        assert found.verdict == "inconclusive"
        assert found.n_needed == 4 * (alone.n_needed or 0)

    def test_graded_items_by_hand(self) -> None:
        """Scores to 10, three of 40 items fell by 5: a loss of 1.5 flips of 10 each."""
        base, candidate = np.full(40, 10.0), np.full(40, 10.0)
        candidate[:3] = 5.0
        found = noninferiority(base, candidate, margin=0.5)
        low, high = FlipCounts(0, 1.5, 40).interval(0.05)
        assert (found.low, found.high) == pytest.approx((10 * low, 10 * high))
        assert found.estimate == pytest.approx(-15 / 40)

    def test_ten_changed_items_are_enough_for_t(self) -> None:
        base, candidate = np.full(40, 0.5), np.full(40, 0.5)
        candidate[:10] = np.linspace(0.1, 0.8, 10)
        assert superiority(base, candidate).method == "cluster-t"
        candidate[0] = 0.5
        assert superiority(base, candidate).method == "tango of clusters"

    def test_the_same_change_everywhere_is_no_certainty(self) -> None:
        found = superiority(np.full(12, 0.5), np.full(12, 0.6))
        assert found.method == "tango of clusters"
        assert found.low < 0.1 < found.high

    def test_keeps_the_level_that_t_alone_would_not(self) -> None:
        members = sizes(20, 20, unequal=False)
        index = np.repeat(np.arange(20), members)
        planted = Flipping(members, 0.5, shares(0.05, -0.03))
        guarded = alone = 0
        for base, candidate in planted.draws(np.random.default_rng(5), 1000):
            guarded += weigh(base, candidate, index)[1].p_value(-0.03) < 0.025
            alone += MeanEstimate.of(candidate - base, index).p_value(-0.03) < 0.025
        assert guarded / 1000 <= 0.025
        assert alone / 1000 >= 0.1


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

    def test_lists_bools_and_arrays_are_the_same_scores(self) -> None:
        base, candidate = paired(30, 5, 9, 20)
        expected = noninferiority(base, candidate, margin=0.1)
        bools = noninferiority(base.astype(bool).tolist(), candidate.astype(bool), margin=0.1)
        assert bools == expected
        labels = np.repeat(np.arange(32), 2)
        assert noninferiority(base, candidate, margin=0.1, clusters=labels) == noninferiority(
            base.tolist(), candidate.tolist(), margin=0.1, clusters=[f"c{k}" for k in labels]
        )

    @settings(deadline=None)
    @given(st.integers(0, 2**32), st.sampled_from([0.0, 0.05, -0.1]), st.booleans())
    def test_p_value_and_interval_agree(self, seed: int, bound: float, graded: bool) -> None:
        draw = np.random.default_rng(seed)
        members = draw.integers(1, 6, 15)
        kind = Graded(members, 0.3, 0.1) if graded else Flipping(members, 0.2, (0.15, 0.1, 0.75))
        ((base, candidate),) = kind.draws(draw, 1)
        found = superiority(
            base, candidate, min_gain=bound, clusters=np.repeat(np.arange(15), members)
        )
        assert (found.low > bound) == (found.p_value < 0.025)
        assert (found.high < bound) == (found.p_value > 0.975)

    @pytest.mark.parametrize(("n", "discordance"), [(50, 0.05), (200, 0.1), (500, 0.4)])
    def test_a_harmful_candidate_passes_in_less_than_alpha(
        self, n: int, discordance: float
    ) -> None:
        """Truth exactly at the margin: the gate may err in 2.5 % of runs, not more."""
        counts = np.random.default_rng(5).multinomial(n, shares(discordance, -0.03), size=1000)
        verdicts = [_verdict(n, int(gained), int(lost)) for gained, lost, _ in counts]
        assert verdicts.count("pass") / 1000 <= at_most(0.03, 1000)

    def test_ten_points_worse_never_passes_at_200_items(self) -> None:
        counts = np.random.default_rng(6).multinomial(200, shares(0.4, -0.1), size=1000)
        verdicts = [_verdict(200, int(gained), int(lost)) for gained, lost, _ in counts]
        assert verdicts.count("pass") <= 2

    @pytest.mark.parametrize(
        ("base", "candidate", "message"),
        [
            ([1.0], [1.0], "length >= 2"),
            ([1, 0], [1], "one length"),
            ([1, 0], [1, np.nan], "finite"),
            ([1, 0], [1, None], "finite"),
        ],
    )
    def test_bad_input(self, base: list[float], candidate: list[float], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            superiority(base, candidate)

    def test_bad_settings(self) -> None:
        with pytest.raises(ValueError, match="margin"):
            noninferiority([1, 0], [1, 0], margin=0)
        with pytest.raises(ValueError, match="alpha"):
            noninferiority([1, 0], [1, 0], margin=0.1, alpha=5)
        with pytest.raises(ValueError, match="3 clusters for 2 items"):
            superiority([1, 0], [1, 0], clusters=["a", "b", "c"])


_SEEN: dict[tuple[int, int, int], str] = {}


def _verdict(n: int, gained: int, lost: int) -> str:
    key = n, gained, lost
    if key not in _SEEN:
        _SEEN[key] = noninferiority(
            *paired(n - gained - lost, gained, lost, 0), margin=0.03
        ).verdict
    return _SEEN[key]


def passes(n: int, truth: tuple[float, float, float], bound: float) -> float:
    """Share of 8,000 samples of n items that pass."""
    counts = np.random.default_rng(n).multinomial(n, truth, size=8000)
    seen = {tuple(row): 0 for row in counts[:, :2].tolist()}
    decided = {row: FlipCounts(*row, n).p_value(bound) < 0.025 for row in seen}
    return float(np.mean([decided[tuple(row)] for row in counts[:, :2].tolist()]))


def planted_flips() -> Iterator[tuple[float, float, float]]:
    """(discordance, true difference, bound)"""
    for discordance in (0.05, 0.1, 0.4):
        for gap in (0.02, 0.05):
            yield discordance, 0.0, -gap
            yield discordance, gap, 0.0


class TestSampleSize:
    @pytest.mark.parametrize(("discordance", "truth", "bound"), list(planted_flips()))
    def test_n_needed_is_right_within_a_tenth(
        self, discordance: float, truth: float, bound: float
    ) -> None:
        """80 % power lies between nine and eleven tenths of n_needed; scores of 100 items whose
        shares are the truth."""
        gained, lost, _ = (round(100 * share) for share in shares(discordance, truth))
        planted = gained / 100, lost / 100, 1 - (gained + lost) / 100
        estimate = (gained - lost) / 100
        bound += estimate - truth
        said = FlipCounts(gained, lost, 100).needed(bound, 0.05)
        assert said is not None
        assert passes(round(said * 0.9), planted, bound) < 0.81
        assert passes(round(said * 1.1), planted, bound) > 0.79

    @pytest.mark.parametrize(
        ("gained", "lost", "n", "bound"),
        [(0.05, 0.0, 60, 0.0), (0.3, 0.02, 50, 0.1), (0.02, 0.15, 40, -0.3), (0.0, 0.0, 80, -0.05)],
    )
    def test_exact_power_is_the_sum_over_all_outcomes(
        self, gained: float, lost: float, n: int, bound: float
    ) -> None:
        expected = sum(
            scipy.stats.multinomial.pmf((g, k, n - g - k), n, (gained, lost, 1 - gained - lost))
            for g in range(n + 1)
            for k in range(n + 1 - g)
            if FlipCounts(g, k, n).statistic(bound) > Z
        )
        assert power(gained, lost, n, bound, 0.05) == pytest.approx(expected, abs=1e-6)

    @pytest.mark.parametrize("correlation", [0.0, 0.5])
    def test_n_needed_of_clusters_is_right_within_a_tenth(self, correlation: float) -> None:
        """Cluster means are set to the quantiles of their true spread, so that the estimates are
        the truth; then 80 % power lies between nine and eleven tenths of n_needed."""
        spread = 0.3 * math.sqrt(correlation + (1 - correlation) / 4)
        scores = scipy.stats.norm.ppf((np.arange(20) + 0.5) / 20)
        means = np.repeat(spread * scores / scores.std(ddof=1), 4)
        found = noninferiority(
            np.zeros(80), means, margin=0.05, clusters=np.repeat(np.arange(20), 4)
        )
        assert found.n_needed is not None

        def passing(items: float) -> float:
            members = sizes(round(items / 4), 4, unequal=False)
            index = np.repeat(np.arange(len(members)), members)
            planted = Graded(members, correlation, 0.0).draws(np.random.default_rng(7), 2000)
            return float(
                np.mean([weigh(x, y, index)[1].p_value(-0.05) < 0.025 for x, y in planted])
            )

        assert passing(found.n_needed * 0.9) < 0.82
        assert passing(found.n_needed * 1.1) > 0.78

    @pytest.mark.parametrize(("gained", "lost", "n"), [(4, 4, 100), (0, 0, 60), (40, 30, 900)])
    def test_detectable_is_what_passes_in_80_percent(self, gained: int, lost: int, n: int) -> None:
        found = noninferiority(*paired(n - gained - lost, gained, lost, 0), margin=0.03)
        assert found.detectable is not None
        truth = found.detectable - 0.03
        planted = shares(max(abs(truth), (gained + lost) / n), truth)
        assert passes(n, planted, -0.03) == pytest.approx(0.8, abs=0.025)

    def test_detectable_of_means_is_the_sum_of_two_quantiles(self) -> None:
        draw = np.random.default_rng(8)
        base, candidate = draw.random(30), draw.random(30)
        found = superiority(base, candidate)
        error = scipy.stats.sem(candidate - base)
        quantiles = scipy.stats.t.ppf([0.975, 0.8], 29).sum()
        assert found.detectable == pytest.approx(error * quantiles)

    def test_none_where_no_number_would_do(self) -> None:
        assert superiority(*paired(10, 2, 4, 10)).n_needed is None
        assert superiority([0.1, 0.5, 0.3], [0.0, 0.4, 0.35]).n_needed is None
        # for a gain of one in a million no sample size is worth naming
        assert MeanEstimate(1e-6, 0.1, 99.0, 100).needed(0.0, 0.05) is None

    def test_none_where_nothing_is_detectable(self) -> None:
        """Two items cannot show a gain, whatever the truth."""
        assert superiority([1, 0], [1, 0], min_gain=0.3).detectable is None


@pytest.mark.parametrize("freedom", [1, 1.7, 2, 5, 11.3, 30, 399, 5000])
def test_t_distribution_is_scipys(freedom: float) -> None:
    for t in (-3.0, -0.5, 0.0, 1.0, 2.5):
        assert t_cdf(t, freedom) == pytest.approx(scipy.stats.t.cdf(t, freedom), abs=1e-9)
    expected = scipy.stats.t.ppf(0.975, freedom)
    assert t_quantile(0.975, freedom) == pytest.approx(expected, rel=1e-6)


def test_clusters_are_numbered_in_order() -> None:
    assert number_clusters(["b", 3, "b", None]).tolist() == [0, 1, 0, 2]
