"""Agreement, ceilings, rates and reliability: by hand, against other libraries, by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from strop.judge.trust.calibration import agreement, human_ceiling, majority, rates, reliability
from strop.stats.agreement import cohen_kappa


def noisy(truth: np.ndarray, wrong: float, draw: np.random.Generator) -> list[int]:
    return np.where(draw.random(len(truth)) < wrong, 1 - truth, truth).tolist()


def test_agreement_is_that_of_the_plain_formulas() -> None:
    draw = np.random.default_rng(0)
    one = draw.integers(0, 3, 200).tolist()
    kept, others = draw.random(200) < 0.6, draw.integers(0, 3, 200)
    other = np.where(kept, one, others).tolist()
    found = agreement(one, other, range(200))
    assert found.kappa.mean == pytest.approx(cohen_kappa(one, other))
    assert found.kappa.mean == pytest.approx(cohen_kappa_score(one, other))
    assert found.observed.mean == pytest.approx(np.mean(np.array(one) == np.array(other)))
    assert found.items == 200


def test_missing_labels_are_left_out() -> None:
    found = agreement(["a", None, "b", "a"], ["a", "b", None, "b"], range(4))
    assert (found.observed.mean, found.items) == (0.5, 2)
    with pytest.raises(ValueError, match="labelled by both"):
        agreement(["a", None], [None, "b"], range(2))


def test_intervals_cover_and_widen_with_clusters() -> None:
    held, widths = 0, []
    for seed in range(100):
        draw = np.random.default_rng(seed)
        truth = draw.integers(0, 2, 300)
        one, other = noisy(truth, 0.1, draw), noisy(truth, 0.1, draw)
        found = agreement(one, other, range(300))
        held += found.observed.low <= 0.82 <= found.observed.high
        again = agreement(one * 2, other * 2, [*range(300), *range(300)])
        widths.append((again.kappa.high - again.kappa.low) / (found.kappa.high - found.kappa.low))
    assert 90 <= held <= 99
    # the same items twice are no new evidence
    assert np.mean(widths) == pytest.approx(1.0, abs=0.02)


def test_the_ceiling_is_the_mean_over_pairs_of_people() -> None:
    people = [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]]
    found = human_ceiling(people, range(4))
    assert found is not None
    assert found.observed.mean == pytest.approx((3 / 4 + 3 / 4 + 2 / 4) / 3)
    assert human_ceiling(people[:1], range(4)) is None
    assert human_ceiling([[1, None], [None, 1]], range(2)) is None  # they have no item in common
    # the third person met the first only
    met = human_ceiling([[1, 0, 1], [1, None, None], [None, None, 0]], range(3))
    assert met is not None
    assert met.observed.mean == pytest.approx((1 + 0) / 2)
    assert met.items == 2


def test_the_ceiling_of_a_crowd() -> None:
    """Fifteen people of whom two at random label each pair: no couple has labelled many."""
    draw = np.random.default_rng(6)
    truth = draw.integers(0, 2, 300)
    people: list[list[int | None]] = [[None] * 300 for _ in range(15)]
    for n in range(300):
        for person in draw.choice(15, 2, replace=False):
            people[person][n] = int(truth[n] if draw.random() < 0.9 else 1 - truth[n])
    found = human_ceiling(people, range(300))
    assert found is not None
    assert found.items == 300
    assert found.observed.low < 0.9**2 + 0.1**2 < found.observed.high
    assert found.observed.high - found.observed.low < 0.12
    assert found.kappa.low < 0.64 < found.kappa.high


def test_the_majority_is_more_than_half() -> None:
    assert majority([["a", "a", "a", None], ["a", "b", "b", None], ["b", "c", None, None]]) == [
        "a", None, None, None,
    ]  # fmt: skip


def test_rates_by_hand() -> None:
    found = rates([1, 1, 0.5, 0, 0, 1], [1, 1, 1, 1, 0, 0], range(6))
    assert found.sensitivity.mean == pytest.approx(2.5 / 4)
    assert found.specificity.mean == pytest.approx(1 / 2)
    for gold in ([1, 1], [0, 0.5]):
        with pytest.raises(ValueError, match="both classes"):
            rates([1, 0], gold, range(2))


def test_a_calibrated_judge_has_no_error_and_a_boastful_one_has() -> None:
    draw = np.random.default_rng(2)
    confidence = draw.uniform(0.5, 1.0, 5000)
    right = draw.random(5000) < confidence
    honest = reliability(confidence.tolist(), right.tolist(), range(5000))
    assert honest.error < 0.02
    assert [one.items for one in honest.bins] == [1000] * 5
    boastful = reliability([0.99] * 5000, right.tolist(), range(5000))
    assert len(boastful.bins) == 1
    assert boastful.error == pytest.approx(0.99 - right.mean())


def test_reliability_by_hand() -> None:
    found = reliability([0.6, 0.6, 0.9, 0.9], [True, False, True, True], range(4))
    assert [(one.confidence, one.right.mean) for one in found.bins] == [(0.6, 0.5), (0.9, 1.0)]
    assert found.error == pytest.approx(0.5 * 0.1 + 0.5 * 0.1)
    with pytest.raises(ValueError, match="no verdicts"):
        reliability([], [], [])
