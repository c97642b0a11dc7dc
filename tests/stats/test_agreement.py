"""Agreement and what it tells of noise: by hand, against statsmodels, on a published table."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.inter_rater import aggregate_raters, cohens_kappa, to_table
from statsmodels.stats.inter_rater import fleiss_kappa as fleiss_of_statsmodels

from strop.stats.agreement import (
    alpha_of_patterns,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
    label_noise,
    majority_noise,
    observed_agreement,
)

N = None
PUBLISHED = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
    [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
]
"""Labels of four observers for twelve units, as in the worked example of Krippendorff 2011."""


def draws(seed: int, annotators: int, error: float, items: int = 400) -> np.ndarray:
    """Labels 0 to 2 of annotators who err alike often, shape [items, annotators]."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, items)[:, None]
    wrong = (truth + rng.integers(1, 3, (items, annotators))) % 3
    return np.where(rng.random((items, annotators)) < error, wrong, truth)


class TestCohen:
    def test_by_hand(self) -> None:
        """3 of 4 agree; by chance 1/2 * 1/4 + 1/2 * 3/4 = 1/2."""
        assert cohen_kappa("aabb", "abbb") == pytest.approx((3 / 4 - 1 / 2) / (1 - 1 / 2))
        assert cohen_kappa("abab", "aabb") == 0.0
        assert cohen_kappa("aa", "aa") == 1.0
        assert observed_agreement("aabb", "abbb") == 0.75

    @pytest.mark.parametrize("error", [0.05, 0.3])
    def test_is_that_of_statsmodels(self, error: float) -> None:
        labels = draws(0, 2, error)
        expected = cohens_kappa(to_table(labels)[0]).kappa
        assert cohen_kappa(labels[:, 0].tolist(), labels[:, 1].tolist()) == pytest.approx(expected)

    def test_refuses_nothing_and_unequal_lengths(self) -> None:
        for one, other in (("", ""), ("ab", "a")):
            with pytest.raises(ValueError, match="one length"):
                cohen_kappa(one, other)


class TestFleiss:
    @pytest.mark.parametrize("annotators", [2, 3, 7])
    def test_is_that_of_statsmodels(self, annotators: int) -> None:
        labels = draws(annotators, annotators, 0.2)
        expected = fleiss_of_statsmodels(aggregate_raters(labels)[0])
        assert fleiss_kappa(labels.tolist()) == pytest.approx(expected)

    def test_by_hand(self) -> None:
        """P = (1 + 1/3) / 2, shares 5/6 and 1/6, so P_e = 26/36."""
        assert fleiss_kappa(["aaa", "aab"]) == pytest.approx((2 / 3 - 26 / 36) / (1 - 26 / 36))

    def test_missing_labels_are_refused(self) -> None:
        with pytest.raises(ValueError, match="same number of labels"):
            fleiss_kappa([[1, 2, 2], [1, None, 1]])


class TestKrippendorff:
    @pytest.mark.parametrize(
        ("scale", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]
    )
    def test_the_published_example(self, scale: str, alpha: float) -> None:
        units = list(zip(*PUBLISHED, strict=True))
        assert krippendorff_alpha(units, scale) == pytest.approx(alpha, abs=5e-4)  # type: ignore[arg-type]

    def test_by_hand(self) -> None:
        """ab, aa: coincidences aa 2, ab 1, ba 1; n_a 3, n_b 1: 1 - 3 * 2 / (3 + 3) = 0."""
        assert krippendorff_alpha(["ab", "aa"]) == pytest.approx(0.0)
        assert krippendorff_alpha(["aa", "bb"]) == 1.0
        assert krippendorff_alpha(["aa", "aa"]) == 1.0
        assert krippendorff_alpha([["a", None], [None, "b"]]) is None

    def test_two_annotators_without_gaps_are_near_scotts_pi(self) -> None:
        """alpha = 1 - (2n - 1) / 2n * (1 - pi), and Fleiss' kappa of two is Scott's pi."""
        labels = draws(3, 2, 0.2).tolist()
        n = 2 * len(labels)
        expected = 1 - (n - 1) / n * (1 - fleiss_kappa(labels))
        assert krippendorff_alpha(labels) == pytest.approx(expected)

    def test_counted_patterns_are_the_same(self) -> None:
        patterns = {(1, 2, None): 2, (3, 3, 3): 4, (1, None, None): 9, (2, 3, 2): 1}
        units = [list(labels) for labels, count in patterns.items() for _ in range(count)]
        for scale in ("nominal", "ordinal", "interval"):
            assert alpha_of_patterns(patterns, scale) == pytest.approx(
                krippendorff_alpha(units, scale)
            )

    def test_near_misses_count_less_on_an_ordinal_scale(self) -> None:
        near, far = [[1, 2], [3, 4], [2, 2], [4, 4]], [[1, 4], [3, 1], [2, 2], [4, 4]]
        assert krippendorff_alpha(near, "ordinal") > krippendorff_alpha(far, "ordinal")  # type: ignore[operator]


class TestNoise:
    def test_by_hand(self) -> None:
        """Two who are wrong one time in ten agree in 0.9^2 + 0.1^2 = 0.82 of the items."""
        assert label_noise(0.82, 2) == pytest.approx(0.1)
        assert label_noise(1.0, 2) == 0.0
        assert label_noise(0.5, 2) == label_noise(0.2, 2) == 0.5
        assert label_noise(1.0, 1) == 0.0

    @pytest.mark.parametrize("error", [0.02, 0.1, 0.3])
    def test_planted_noise_is_found(self, error: float) -> None:
        labels = draws(7, 2, error, 40_000)
        agreement = observed_agreement(labels[:, 0].tolist(), labels[:, 1].tolist())
        assert label_noise(agreement, 3) == pytest.approx(error, abs=0.01)

    def test_majority(self) -> None:
        assert majority_noise(0.1, 3) == pytest.approx(0.1**3 + 3 * 0.1**2 * 0.9)
        assert majority_noise(0.1, 1) == pytest.approx(0.1)
        assert majority_noise(0.1, 2) == pytest.approx(0.01 + 0.5 * 0.18)
