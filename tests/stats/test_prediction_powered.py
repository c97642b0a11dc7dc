"""Prediction-powered win rates: by hand, against simulation with known truth, and refusals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from strop.stats.prediction_powered import WinRate, rogan_gladen, win_rate


def drawn(
    draw: np.random.Generator, accuracy: float, anchors: int, *, share: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """(judge, human) of 2,000 items; the first `anchors` are those that humans labelled."""
    human = draw.random(2000) < share
    judge = np.where(draw.random(2000) < accuracy, human, ~human)
    return judge.astype(float), human.astype(float)


def coverage(accuracy: float, anchors: int, repetitions: int, share: float = 0.5) -> float:
    draw = np.random.default_rng(int(1000 * accuracy) + anchors)
    held = 0
    for _ in range(repetitions):
        judge, human = drawn(draw, accuracy, anchors, share=share)
        found = win_rate(judge, judge[:anchors], human[:anchors])
        held += found.low <= share <= found.high
        classical = found.classical[1] - found.classical[0]
        assert found.high - found.low <= 1.0001 * classical
    return held / repetitions


def test_by_hand() -> None:
    judge_all = [1, 1, 1, 0, 0, 0, 1, 0, 1, 1]
    judge, human = judge_all[:6], [1, 1, 0, 0, 0, 1]
    found = win_rate(judge_all, judge, human)
    # var(judge on all) = 0.6 * 0.4 * 10 / 9; cov on anchors: (2 - 6 * 0.5 * 0.5) / 5 = 0.1
    weight = 0.1 / (0.24 * 10 / 9)
    assert found.weight == pytest.approx(weight)
    assert found.estimate == pytest.approx(0.5 + weight * (0.6 - 0.5))
    assert found.corrected == pytest.approx(found.estimate - 0.6)
    half = stats.t.ppf(0.975, 5) * np.std(human, ddof=1) / np.sqrt(6)
    assert found.classical == pytest.approx((0.5 - half, 0.5 + half))


def test_a_judge_without_information_leaves_the_human_labels() -> None:
    human = [1, 0, 1, 1, 0, 1, 0, 1]
    for judge in ([1.0] * 8, [0, 1, 0, 0, 1, 0, 1, 0]):
        found = win_rate(judge * 10, judge, human)
        assert found.weight == 0
        assert found.estimate == pytest.approx(np.mean(human))
        assert (found.low, found.high) == pytest.approx(found.classical)


def test_a_judge_that_is_always_right_counts_as_a_human() -> None:
    draw = np.random.default_rng(0)
    truth = (draw.random(3000) < 0.6).astype(float)
    found = win_rate(truth, truth[:200], truth[:200])
    assert found.estimate == pytest.approx(truth.mean(), abs=0.01)
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(0.24 / 3000), rel=0.25)


def test_a_biased_judge_is_corrected() -> None:
    """The judge calls two wins in three where the truth is one in two."""
    draw = np.random.default_rng(1)
    found = []
    for _ in range(300):
        human = draw.random(1000) < 0.5
        judge = human | (draw.random(1000) < 1 / 3)
        found.append(win_rate(judge, judge[:100], human[:100]).estimate)
    assert np.mean(found) == pytest.approx(0.5, abs=3 * np.std(found) / np.sqrt(300))


@pytest.mark.parametrize(("accuracy", "anchors"), [(0.55, 30), (0.75, 100), (0.95, 500)])
def test_intervals_cover_quickly(accuracy: float, anchors: int) -> None:
    # 400 repetitions: a true 95 % is within 92 to 98 % in all but 1 of 300 runs
    assert 0.92 <= coverage(accuracy, anchors, 400) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize(
    ("accuracy", "anchors", "share"),
    itertools.product((0.55, 0.65, 0.75, 0.85, 0.95), (30, 50, 100, 200, 500), (0.5, 0.6)),
)
def test_intervals_cover(accuracy: float, anchors: int, share: float) -> None:
    assert 0.93 <= coverage(accuracy, anchors, 2000, share) <= 0.97


@pytest.mark.parametrize(
    ("judge_all", "judge", "human", "said"),
    [
        ([1] * 9, [1, 0, 1, 0], [1, 0, 1, 0], "too few"),
        ([1] * 9, [1, 0, 1, 0, 1], [1, 0, 1, 0], "pair by position"),
        ([1] * 4, [1, 0, 1, 0, 1], [1, 0, 1, 0, 1], "fewer than the 5 anchors"),
        ([2] * 9, [1, 0, 1, 0, 1], [1, 0, 1, 0, 1], "judge_all holds a value outside"),
        ([1] * 9, [1, 0, 1, 0, 1], [1, 0, 1, 0, np.nan], "human_anchored holds a value outside"),
    ],
)
def test_what_is_refused(judge_all: object, judge: object, human: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        win_rate(judge_all, judge, human)  # type: ignore[arg-type]


def test_rogan_gladen_by_hand() -> None:
    # 0.6 judged = 0.5 * 0.9 + 0.5 * 0.3
    assert rogan_gladen(0.6, sensitivity=0.9, specificity=0.7) == pytest.approx(0.5)
    assert rogan_gladen(0.05, sensitivity=0.9, specificity=0.7) == 0.0
    with pytest.raises(ValueError, match="no better than chance"):
        rogan_gladen(0.5, sensitivity=0.6, specificity=0.4)


def test_the_example_of_the_docstring_holds() -> None:
    assert WinRate(0.61, 0.56, 0.66, 0.7, (0.52, 0.71), 80, 2000, 0.02).judged == 2000
