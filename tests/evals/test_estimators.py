"""Estimators of best-of-n and votes against all subsets, and their intervals."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from strop.evals.decode.estimators import affordable, best_at, majority_at, pass_at
from strop.stats.share import share

DRAWN = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", None]), st.booleans(), st.sampled_from([0, 1, None])),
    min_size=1,
    max_size=8,
)


def over_subsets(n: int, k: int, value: Callable[[tuple[int, ...]], float]) -> float:
    """The definition: the mean over all k of n."""
    return fmean(value(subset) for subset in combinations(range(n), k))


class TestEstimators:
    @given(st.lists(st.booleans(), min_size=1, max_size=9))
    def test_pass_at_k(self, right: list[bool]) -> None:
        for k in range(1, len(right) + 1):
            oracle = over_subsets(len(right), k, lambda s: any(right[i] for i in s))
            assert pass_at(right, k) == pytest.approx(oracle, abs=1e-12)

    @settings(max_examples=150)
    @given(DRAWN)
    def test_majority(self, drawn: list[tuple[str | None, bool, Any]]) -> None:
        votes, right, _ = zip(*drawn, strict=True)

        def elected(subset: tuple[int, ...]) -> float:
            cast = Counter(votes[i] for i in subset if votes[i] is not None)
            first = [v for v, count in cast.items() if count == max(cast.values())]
            ok = [fmean(right[i] for i in subset if votes[i] == v) for v in first]
            return fmean(ok) if ok else 0.0

        ks = list(range(1, len(drawn) + 1))
        oracle = [over_subsets(len(drawn), k, elected) for k in ks]
        assert majority_at(votes, right, ks) == pytest.approx(oracle, abs=1e-12)

    @settings(max_examples=150)
    @given(DRAWN)
    def test_best_by_reward(self, drawn: list[tuple[Any, bool, int | None]]) -> None:
        _, right, rewards = zip(*drawn, strict=True)
        rank = [-math.inf if reward is None else reward for reward in rewards]

        def picked(subset: tuple[int, ...]) -> float:
            top = max(rank[i] for i in subset)
            return fmean(right[i] for i in subset if rank[i] == top)

        for k in range(1, len(drawn) + 1):
            oracle = over_subsets(len(drawn), k, picked)
            assert best_at(rewards, right, k) == pytest.approx(oracle, abs=1e-12)

    def test_by_hand(self) -> None:
        assert pass_at([True, False, False, False], 2) == 0.5
        votes, right = ["7", "7", "8"], [True, True, False]
        assert majority_at(votes, right, [1, 2, 3]) == pytest.approx(
            [2 / 3, (1 + 0.5 + 0.5) / 3, 1]
        )
        assert majority_at(["7", None, None], [True, False, False], [1, 2]) == pytest.approx(
            [1 / 3, 2 / 3]
        )
        assert majority_at([None, None], [True, True], [2]) == [0.0]
        assert best_at([0.1, 0.9, None], [True, False, True], 3) == 0.0
        assert best_at([0.1, 0.9, None], [True, False, True], 2) == pytest.approx(1 / 3)

    def test_a_picker_that_knows_is_pass_at_k(self) -> None:
        right = [True] * 3 + [False] * 9
        for k in range(1, 13):
            assert best_at([float(ok) for ok in right], right, k) == pytest.approx(
                pass_at(right, k)
            )

    def test_many_answers_against_drawn_subsets(self) -> None:
        """Too many subsets to list: 64 answers in 20 classes, 20,000 subsets drawn."""
        draw = random.Random(5)
        votes = [draw.choice("abcdefghijklmnopqrst") for _ in range(48)] + ["a"] * 6 + [None] * 10
        right = [vote == "a" for vote in votes]
        for k, exact in zip((8, 24), majority_at(votes, right, [8, 24]), strict=True):
            seen = []
            for _ in range(20_000):
                cast = Counter(v for v in draw.sample(votes, k) if v is not None)
                first = [v for v, count in cast.items() if count == max(cast.values())]
                seen.append(("a" in first) / len(first))
            error = math.sqrt(fmean((x - exact) ** 2 for x in seen) / len(seen))
            assert abs(fmean(seen) - exact) < 4 * error
            assert 0.05 < exact < 0.95

    def test_many_different_answers(self) -> None:
        """All tie: one of 300 is drawn with chance k / 300 and then wins one time in k."""
        right = [True] + [False] * 299
        assert majority_at(range(300), right, [2, 40, 300]) == pytest.approx([1 / 300] * 3)

    @pytest.mark.parametrize("k", [0, 4])
    def test_k_outside_the_draws(self, k: int) -> None:
        for refused in (
            lambda: pass_at([True] * 3, k),
            lambda: best_at([1.0] * 3, [True] * 3, k),
            lambda: majority_at(["a"] * 3, [True] * 3, [k]),
        ):
            with pytest.raises(ValueError, match="between 1 and the 3 answers"):
                refused()


class TestIntervals:
    @pytest.mark.parametrize(("right", "n"), [(0, 12), (7, 12), (12, 12)])
    def test_binary_items_get_wilsons_interval(self, right: int, n: int) -> None:
        found = share([1.0] * right + [0.0] * (n - right), range(n))
        expected = stats.binomtest(right, n).proportion_ci(method="wilson")
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))

    def test_chances_get_the_t_interval(self) -> None:
        values = [0.1, 0.5, 0.5, 0.9, 0.3, 0.4]
        low, high = stats.t.interval(0.95, 5, fmean(values), stats.sem(values))
        found = share(values, "abcdef")
        assert (found.low, found.high) == pytest.approx((low, high))

    def test_items_of_one_cluster_are_not_news(self) -> None:
        """Every item ten times over says as much as once; as if independent it would say more."""
        values, clusters = [0.1, 0.5, 0.5, 0.9, 0.3, 0.4], list("abcdef")
        once, repeated = share(values, clusters), share(values * 10, clusters * 10)
        assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high))
        assert share(values * 10, range(60)).low > repeated.low + 0.1

    def test_nothing_varies(self) -> None:
        """Four clusters that agree are four, however many items they hold; one is one."""
        assert share([1.0] * 40, [i // 10 for i in range(40)]).low == share([1.0] * 4, range(4)).low
        assert share([0.5] * 40, [0] * 40).high - 0.5 > 0.3

    def test_affordable(self) -> None:
        curve = [(40.0, 0.4), (10.0, 0.2), (160.0, 0.5)]
        assert affordable(curve, 20) == pytest.approx(0.3)
        assert affordable(curve, 10) == pytest.approx(0.2)
        assert affordable(curve, 9.9) is None
        assert affordable(curve, 1000) == pytest.approx(0.5)
