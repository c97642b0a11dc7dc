"""Adjusted p-values and flips, against statsmodels and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import statsmodels.stats.contingency_tables
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from strop.stats.flips import Flips, flips, mcnemar
from strop.stats.multiple import benjamini_hochberg, holm

P_VALUES = st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.01, 0.05, 1.0]), min_size=1)


class TestAdjusted:
    @given(P_VALUES)
    def test_benjamini_hochberg_is_statsmodels(self, p_values: list[float]) -> None:
        expected = multipletests(p_values, method="fdr_bh")[1]
        assert benjamini_hochberg(p_values) == pytest.approx(expected)

    @pytest.mark.parametrize("count", [1, 4, 15])
    def test_holm_is_statsmodels(self, count: int) -> None:
        p_values = np.random.default_rng(count).random(count) ** 3
        p_values[count // 2 :] = np.round(p_values[count // 2 :], 1)
        expected = multipletests(p_values, method="holm")[1]
        assert holm(p_values.tolist()) == pytest.approx(expected)

    def test_by_hand(self) -> None:
        assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
        assert benjamini_hochberg([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.04, 0.04])
        assert holm([]) == benjamini_hochberg([]) == []

    @pytest.mark.parametrize("wrong", [[0.1, 1.2], [-0.1], [float("nan")]])
    def test_bad_input(self, wrong: list[float]) -> None:
        with pytest.raises(ValueError, match="between 0 and 1"):
            holm(wrong)


class TestFlips:
    def test_by_hand(self) -> None:
        base, candidate = [1, 1, 1, 0, 0, 0.2], [1, 0, 0, 1, 0, 0.4]
        assert flips(base, candidate) == Flips(harmful=2, helpful=1, churn=4 / 6, n=6)

    def test_samples_of_an_item_are_averaged_first(self) -> None:
        """a: 2 of 3 right, then 1 of 3; b: always right; c: 1 of 2 is not more often right."""
        items = ["a", "b", "a", "a", "b", "c", "c"]
        base, candidate = [1, 1, 1, 0, 1, 1, 0], [0, 1, 0, 1, 1, 0, 1]
        assert flips(base, candidate, items=items) == Flips(1, 0, 1 / 3, 3)

    def test_bad_input(self) -> None:
        with pytest.raises(ValueError, match="one length"):
            flips([1, 0], [1])
        with pytest.raises(ValueError, match="2 item labels for 3 scores"):
            flips([1, 0, 1], [1, 0, 1], items=["a", "b"])


class TestMcnemar:
    @given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
    def test_statsmodels(self, gained: int, lost: int, same: int) -> None:
        base = np.array([0] * gained + [1] * lost + [1] * (same + 1))
        candidate = np.array([1] * gained + [0] * lost + [1] * (same + 1))
        table = [[same + 1, lost], [gained, 0]]
        expected = statsmodels.stats.contingency_tables.mcnemar(table, exact=True).pvalue
        assert mcnemar(base, candidate) == pytest.approx(expected)

    def test_binomial(self) -> None:
        base, candidate = [0] * 3 + [1] * 11 + [1, 0], [1] * 3 + [0] * 11 + [1, 0]
        assert mcnemar(base, candidate) == pytest.approx(scipy.stats.binomtest(3, 14).pvalue)
