"""Areas under the curve: by hand, against scipy, and intervals that cover a known truth."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from strop.stats.auc import auc
from strop.stats.ranking import paired_ranking, ranking


class TestArea:
    def test_by_hand(self) -> None:
        assert auc([2], [1, 2]) == 0.75
        assert auc([3, 5], [1, 5]) == (1 + 0 + 1 + 0.5) / 4
        assert auc([1.0], [2.0]) == 0.0
        with pytest.raises(ValueError, match="both groups"):
            auc([], [1])

    @pytest.mark.parametrize("groups", [([float("nan"), 1.0], [2.0]), ([1.0], [float("nan")])])
    def test_nan_has_no_rank(self, groups: tuple[list[float], list[float]]) -> None:
        with pytest.raises(ValueError, match="NaN has no rank"):
            auc(*groups)

    def test_is_mann_and_whitneys(self) -> None:
        rng = np.random.default_rng(0)
        x, y = rng.integers(0, 9, 300).astype(float), rng.random(300) < 0.3
        expected = scipy.stats.mannwhitneyu(x[y], x[~y]).statistic / (y.sum() * (~y).sum())
        assert auc(x[y], x[~y]) == pytest.approx(expected)


class TestPaired:
    def test_by_hand(self) -> None:
        """Two pairs won, one lost, one tied: (2 + 1/2) / 4."""
        found = paired_ranking([3, 2, 1, 1], [1, 1, 2, 1], [0, 1, 2, 3])
        assert (found.auc, found.differ, found.n) == (0.625, 0.75, 4)
        assert found.low is None  # four prompts tell no spread

    def test_interval_of_single_pairs_covers_the_truth(self) -> None:
        """Wins 0.5, losses 0.3, ties 0.2: area 0.6."""
        rng, covered = np.random.default_rng(1), 0
        for _ in range(400):
            gap = rng.choice([1, -1, 0], 120, p=[0.5, 0.3, 0.2])
            found = paired_ranking(gap, np.zeros(120), range(120))
            assert found.low is not None
            assert found.high is not None
            covered += found.low <= 0.6 <= found.high
        assert 0.925 <= covered / 400 <= 0.985

    def test_pairs_of_one_prompt_count_as_one(self) -> None:
        """The same 40 wins of 60: ten times over in 60 prompts they are no more evidence."""
        gap = np.array([1] * 40 + [-1] * 20)
        alone = paired_ranking(gap, np.zeros(60), range(60))
        tenfold = paired_ranking(np.repeat(gap, 10), np.zeros(600), np.repeat(range(60), 10))
        apart = paired_ranking(np.repeat(gap, 10), np.zeros(600), range(600))
        width = lambda found: found.high - found.low  # noqa: E731
        assert tenfold.auc == alone.auc
        assert width(tenfold) == pytest.approx(width(alone), rel=0.1)
        assert width(apart) < 0.4 * width(tenfold)

    def test_level_under_no_difference(self) -> None:
        rng = np.random.default_rng(2)
        p_values = [
            paired_ranking(rng.random(100), rng.random(100), range(100)).p_value or 0.0
            for _ in range(600)
        ]
        assert 0.02 <= np.mean(np.array(p_values) < 0.05) <= 0.08

    def test_no_differences_are_no_evidence(self) -> None:
        found = paired_ranking(np.ones(50), np.ones(50), range(50))
        assert (found.auc, found.differ, found.p_value) == (0.5, 0.0, 1.0)

    def test_all_won(self) -> None:
        found = paired_ranking(np.ones(30), np.zeros(30), range(30))
        assert found.auc == 1.0
        assert found.low is not None
        assert 0.85 < found.low < 1.0


class TestSingle:
    def test_error_is_delongs(self) -> None:
        """Written out from the structural components, for items of their own."""
        rng = np.random.default_rng(3)
        y = np.arange(80) < 30
        x = rng.normal(size=80) + y
        found = ranking(x, y, range(80))
        right, wrong = x[y], x[~y]
        wins = (right[:, None] > wrong[None, :]).astype(float)
        variance = wins.mean(1).var(ddof=1) / 30 + wins.mean(0).var(ddof=1) / 50
        half = scipy.stats.t.ppf(0.975, 79) * variance**0.5
        assert found.auc == pytest.approx(wins.mean())
        assert found.low == pytest.approx(wins.mean() - half, abs=0.003)

    def test_interval_covers_the_truth_with_clusters(self) -> None:
        """Normal scores one apart: area 0.760; five answers of one prompt share half of it."""
        rng, covered = np.random.default_rng(4), 0
        truth = scipy.stats.norm.cdf(1 / np.sqrt(2))
        for _ in range(300):
            prompt = np.repeat(np.arange(60), 5)
            y = rng.random(300) < 0.5
            x = rng.normal(size=60)[prompt] * 0.5**0.5 + rng.normal(size=300) * 0.5**0.5 + y
            found = ranking(x, y, prompt)
            assert found.low is not None
            assert found.high is not None
            covered += found.low <= truth <= found.high
        assert 0.91 <= covered / 300 <= 0.985

    def test_a_perfect_ranking_is_not_certain(self) -> None:
        found = ranking([1, 2, 3, 4, 5, 6, 7, 8], [False] * 4 + [True] * 4, range(8))
        assert found.auc == 1.0
        assert found.low is not None
        assert 0.4 < found.low < 0.8
        many = ranking(range(800), [False] * 400 + [True] * 400, range(800))
        assert many.low is not None
        assert many.low > 0.98

    def test_too_few_prompts(self) -> None:
        assert ranking([1, 2, 3], [False, True, True], "aab").low is None
