"""Biases by hand, planted and absent; the published figures are in test_recorded.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from strop.judge.bias import consistent, length_controlled, position_bias, self_preference
from strop.judge.bias.length import has_support


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


class TestPosition:
    def test_by_hand(self) -> None:
        found = position_bias([1, 1, 0, 0.5, None, 1], [1, 0, 0, 0.5, 1, None])
        assert (found.pairs, found.missing) == (4, 2)
        assert found.consistency.mean == 3 / 4
        # decided verdicts by place: first, second | first, first | second, first
        assert found.first.mean == pytest.approx(4 / 6)
        assert found.preference == pytest.approx(1 / 4)

    def test_a_planted_preference_is_found_and_a_fair_judge_is_fair(self) -> None:
        draw = np.random.default_rng(0)
        truth = draw.random(1000) < 0.5
        first, again = (draw.random(1000) < 0.3 for _ in "ab")
        straight = np.where(first, 1, truth).astype(float).tolist()
        swapped = np.where(again, 0, truth).astype(float).tolist()
        biased = position_bias(straight, swapped)
        # a verdict is that of the place in 0.3, right in 0.7
        assert biased.first.low > 0.5
        assert biased.preference == pytest.approx(0.3, abs=0.06)
        fair = position_bias(truth.astype(float).tolist(), truth.astype(float).tolist())
        assert (fair.consistency.mean, fair.preference) == (1.0, 0.0)
        assert fair.first.low <= 0.5 <= fair.first.high

    def test_disagreement_is_a_tie_or_nothing(self) -> None:
        straight, swapped = [1, 1, None, 0.5], [1, 0, 1, 0.5]
        assert consistent(straight, swapped, otherwise=0.5) == [1, 0.5, None, 0.5]
        assert consistent(straight, swapped, otherwise=None) == [1, None, None, 0.5]

    def test_without_both_orders_nothing_is_said(self) -> None:
        with pytest.raises(ValueError, match="both orders"):
            position_bias([1, None], [None, 0])


class TestSelfPreference:
    def test_by_hand(self) -> None:
        human = [1] * 10 + [0] * 10 + [0.5]
        judged = [1] * 9 + [0] + [1] * 4 + [0] * 6 + [1]
        found = self_preference(judged, human)
        assert (found.own, found.other, found.n_own, found.n_other) == (0.9, 0.6, 10, 10)
        assert found.difference == pytest.approx(0.3)
        # Newcombe's method 10 by hand: Wilson 0.5958-0.9821 and 0.3127-0.8318
        assert found.low == pytest.approx(0.3 - np.hypot(0.9 - 0.59585, 0.83182 - 0.6), abs=1e-4)
        assert found.high == pytest.approx(0.3 + np.hypot(0.98212 - 0.9, 0.6 - 0.31267), abs=1e-4)

    def test_wins_of_one_side_only_say_nothing(self) -> None:
        with pytest.raises(ValueError, match="one side only"):
            self_preference([1, 0], [1, 1])


def comparisons(seed: int, phi: float, models: dict[str, tuple[float, float]]) -> list[Any]:
    """Rows of models given as (strength, mean length difference), 300 instructions each."""
    draw = np.random.default_rng(seed)
    hard = draw.normal(size=300)
    rows = []
    for name, (strength, longer) in models.items():
        gap = draw.normal(longer, 500, size=300)
        chance = sigmoid(strength + phi * np.tanh(gap / gap.std()) + hard)
        won = draw.random(300) < chance
        rows += [
            {"model": name, "instruction": n, "length_difference": gap[n],
             "preference": float(won[n])}
            for n in range(300)
        ]  # fmt: skip
    return rows


MODELS = {"a": (0.0, 400.0), "b": (0.0, -400.0), "c": (0.8, 0.0), "d": (-0.8, 0.0)}


class TestLengthControl:
    def test_equal_models_are_equal_at_equal_length(self) -> None:
        found = length_controlled(comparisons(0, 1.2, MODELS))
        raw = found["a"]["win_rate"] - found["b"]["win_rate"]
        fair = found["a"]["length_controlled"] - found["b"]["length_controlled"]
        assert raw > 15
        assert abs(fair) < 7
        assert found["c"]["low"] > found["d"]["high"]

    def test_a_judge_that_does_not_mind_length_is_left_alone(self) -> None:
        found = length_controlled(comparisons(1, 0.0, MODELS))
        for row in found.values():
            assert row["length_controlled"] == pytest.approx(row["win_rate"], abs=4)

    def test_intervals_hold_the_truth(self) -> None:
        held = total = 0
        for seed in range(15):
            found = length_controlled(comparisons(seed, 1.0, MODELS))
            hard = np.random.default_rng(seed).normal(size=300)
            for name, (strength, _) in MODELS.items():
                truth = 100 * sigmoid(strength + hard).mean()
                held += found[name]["low"] <= truth <= found[name]["high"]
                total += 1
        assert held / total >= 0.85

    def test_lengths_that_never_meet_give_no_answer(self) -> None:
        rows = comparisons(0, 1.0, {"a": (0.0, 0.0), "long": (0.0, 5000.0)})
        found = length_controlled(rows)
        assert found["long"]["length_controlled"] is None
        assert found["long"]["low"] is None
        assert found["long"]["win_rate"] is not None
        assert found["a"]["length_controlled"] is not None
        assert has_support([0.0] * 10)
        assert not has_support([10.0, 11.0, 12.0])

    @pytest.mark.parametrize(
        ("rows", "said"),
        [
            ([], "no comparisons"),
            ([{"model": "a", "instruction": "i", "length_difference": 1, "preference": 1.5}],
             "outside 0 to 1"),
        ],
    )  # fmt: skip
    def test_what_is_refused(self, rows: list[Any], said: str) -> None:
        with pytest.raises(ValueError, match=said):
            length_controlled(rows)
