"""Errors by clusters and ratios of means, against statsmodels, scipy and plain matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import statsmodels.api

from strop.errors import MissingEvidenceError
from strop.stats import band, superiority
from strop.stats.clustered import MeanEstimate, number_clusters

LABELS = {
    "equal": np.repeat(np.arange(12), 5),
    "unequal": np.repeat(np.arange(9), [1, 2, 3, 4, 6, 8, 9, 12, 15]),
}


def scores(labels: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    base = draw.normal(0.0, 1.0, len(labels))
    effects = draw.normal(0.1, 0.3, labels.max() + 1)[labels]
    return base, base + effects + draw.normal(0.0, 0.2, len(labels))


def clustered_ols(values: np.ndarray, labels: np.ndarray, **settings: bool) -> Any:
    """statsmodels' regression on a constant, with errors by clusters and t."""
    return statsmodels.api.OLS(values, np.ones(len(values))).fit(
        cov_type="cluster", cov_kwds={"groups": labels, **settings}, use_t=True
    )


class TestErrors:
    def test_equal_clusters_are_statsmodels(self) -> None:
        labels = LABELS["equal"]
        base, candidate = scores(labels)
        fit = clustered_ols(candidate - base, labels)
        found = superiority(base, candidate, clusters=labels.tolist())
        assert (found.low, found.high) == pytest.approx(tuple(fit.conf_int()[0]))
        assert found.p_value == pytest.approx(fit.pvalues[0] / 2)

    def test_unequal_clusters_differ_from_statsmodels_by_the_factor_of_each_cluster(self) -> None:
        """There, one factor G / (G - 1) for all; here, 1 / (1 - share) for each."""
        labels = LABELS["unequal"]
        base, candidate = scores(labels)
        change = candidate - base
        sums = np.bincount(labels, weights=change - change.mean())
        plain = clustered_ols(change, labels, use_correction=False).bse[0] ** 2
        assert plain == pytest.approx((sums**2).sum() / len(labels) ** 2)
        factors = 1 / (1 - np.bincount(labels) / len(labels))
        expected = plain * (factors * sums**2).sum() / (sums**2).sum()
        assert MeanEstimate.of(change, labels).error ** 2 == pytest.approx(expected)

    @pytest.mark.parametrize("kind", LABELS)
    def test_matrices_of_bell_and_mccaffrey(self, kind: str) -> None:
        """Residuals of each cluster times (I - H_gg)^(-1/2); freedom from the eigenvalues of the
        quadratic form for independent errors (Bell and McCaffrey 2002, sections 3 and 4)."""
        labels = LABELS[kind]
        base, candidate = scores(labels)
        change, n = candidate - base, len(labels)
        keep = np.eye(n) - np.full((n, n), 1 / n)
        rows = []
        for number in range(labels.max() + 1):
            own = labels == number
            root = scipy.linalg.inv(scipy.linalg.sqrtm(keep[np.ix_(own, own)]).real)
            rows.append(root.sum(axis=0) @ keep[own] / n)
        weights = np.array(rows)
        found = MeanEstimate.of(change, labels)
        assert found.error**2 == pytest.approx(((weights @ change) ** 2).sum())
        values = np.linalg.eigvalsh(weights @ weights.T)
        assert found.freedom == pytest.approx(values.sum() ** 2 / (values**2).sum())

    def test_freedom_falls_with_inequality(self) -> None:
        equal, unequal = (MeanEstimate.of(np.arange(60.0), labels) for labels in LABELS.values())
        assert equal.freedom == pytest.approx(11)
        assert unequal.freedom < 8

    def test_the_order_of_rows_does_not_matter(self) -> None:
        labels = LABELS["unequal"]
        base, candidate = scores(labels)
        order = np.random.default_rng(1).permutation(len(labels))
        there = superiority(base, candidate, clusters=labels)
        back = superiority(base[order], candidate[order], clusters=labels[order])
        assert (there.low, there.high) == pytest.approx((back.low, back.high))
        assert number_clusters(labels[order]).max() == labels.max()


def lengths(n: int, ratio: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    base = draw.lognormal(4.0, 0.4, n)
    return base, ratio * base * draw.lognormal(-0.02, 0.2, n)


class TestBand:
    def test_ends_are_the_ratios_that_a_t_test_no_longer_refuses(self) -> None:
        base, candidate = lengths(40, 1.05)
        found = band(base, candidate, low=0.9, high=1.2)
        assert found.method == "fieller"
        assert found.estimate == pytest.approx(candidate.mean() / base.mean())
        for end in (found.low, found.high):
            test = scipy.stats.ttest_1samp(candidate - end * base, 0.0)
            assert test.pvalue == pytest.approx(0.05, rel=1e-6)

    def test_ends_by_clusters(self) -> None:
        labels = LABELS["equal"]
        base, candidate = lengths(60, 1.0)
        found = band(base, candidate, low=0.9, high=1.2, clusters=labels)
        for end in (found.low, found.high):
            assert clustered_ols(candidate - end * base, labels).pvalues[0] == pytest.approx(0.05)

    def test_p_value_is_the_larger_of_two_one_sided_tests(self) -> None:
        base, candidate = lengths(40, 1.05)
        above = scipy.stats.ttest_1samp(candidate - 0.9 * base, 0.0, alternative="greater")
        below = scipy.stats.ttest_1samp(candidate - 1.2 * base, 0.0, alternative="less")
        found = band(base, candidate, low=0.9, high=1.2)
        assert found.p_value == pytest.approx(max(above.pvalue, below.pvalue))
        assert (found.verdict == "pass") == (found.p_value < 0.025)

    def test_three_answers(self) -> None:
        assert band(*lengths(200, 1.0), low=0.9, high=1.1).verdict == "pass"
        assert band(*lengths(200, 1.5), low=0.9, high=1.1).verdict == "regressed"
        assert band(*lengths(200, 0.6), low=0.9, high=1.1).verdict == "regressed"
        assert band(*lengths(10, 1.0), low=0.95, high=1.05).verdict == "inconclusive"

    def test_a_base_that_could_be_zero_bounds_nothing(self) -> None:
        base = [0.0] * 19 + [5.0]
        found = band(base, [1.0] * 20, low=0.5, high=2.0)
        assert (found.low, found.high) == (-np.inf, np.inf)
        assert found.verdict == "inconclusive"

    def test_the_same_lengths_pass(self) -> None:
        base, _ = lengths(20, 1.0)
        found = band(base, base, low=0.9, high=1.1)
        assert (found.low, found.high, found.verdict) == (
            pytest.approx(1),
            pytest.approx(1),
            "pass",
        )

    def test_n_needed_passes_in_80_percent(self) -> None:
        """The spread of the logarithms is planted: 0.2, whose mean square is known."""
        base, candidate = lengths(4000, 1.0)
        few = band(base[:40], candidate[:40], low=0.95, high=1.05)
        assert few.verdict == "inconclusive"
        scale = base[:40].mean() / candidate[:40].mean()
        centred = band(base[:40], candidate[:40] * scale, low=0.95, high=1.05)
        assert centred.n_needed is not None
        draw = np.random.default_rng(3)
        chosen = draw.integers(0, 40, (2000, centred.n_needed))
        passed = np.mean([
            band(base[row], candidate[row] * scale, low=0.95, high=1.05).verdict == "pass"
            for row in chosen
        ])  # fmt: skip
        assert passed == pytest.approx(0.8, abs=0.05)

    def test_at_the_end_of_the_band_it_passes_in_less_than_alpha(self) -> None:
        verdicts = [
            band(*lengths(60, 1.1, seed), low=0.9, high=1.1).verdict for seed in range(1000)
        ]
        assert verdicts.count("pass") / 1000 <= 0.025 + 3 * (0.025 * 0.975 / 1000) ** 0.5 + 0.01

    def test_bad_input(self) -> None:
        with pytest.raises(ValueError, match="0 < low < high"):
            band([1, 2], [1, 2], low=1.2, high=1.1)
        with pytest.raises(ValueError, match="mean above 0"):
            band([0, 0], [1, 2], low=0.9, high=1.1)
        with pytest.raises(MissingEvidenceError, match="4 items in 2 clusters"):
            band([1, 2, 3, 4], [1, 2, 3, 4], low=0.9, high=1.1, clusters=list("aabb"))
