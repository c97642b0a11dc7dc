"""Panels by hand: weights from anchors, the majority, Dawid and Skene with and without help."""

from __future__ import annotations

import math

import numpy as np
import pytest

from strop.judge.panel import dawid_skene, weighted_vote, weights


def simulated(accuracies: list[float], items: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Independent judges of these accuracies, and the truth."""
    draw = np.random.default_rng(seed)
    truth = (draw.random(items) < 0.5).astype(float)
    right = draw.random((len(accuracies), items)) < np.array(accuracies)[:, None]
    return np.where(right, truth, 1 - truth), truth


def test_weights_by_hand() -> None:
    gold = [1, 1, 1, 0]
    verdicts = [[1, 1, 1, 0], [0, 0, 1, 1], [1, 1, 0, np.nan], [0, 0, 0, 1]]
    expected = [math.log(4.5 / 0.5), math.log(1.5 / 3.5), math.log(2.5 / 1.5), math.log(0.5 / 4.5)]
    assert weights(verdicts, gold) == pytest.approx(expected)


def test_a_vote_for_the_wrong_side_counts_for_the_other() -> None:
    verdicts = [[1, 0, np.nan], [0, 1, np.nan], [0, 1, np.nan]]
    assert weighted_vote(verdicts, [1, 1, 1]).tolist() == [0, 1, 0.5]
    assert weighted_vote(verdicts, [2, -1, -1]).tolist() == [1, 0, 0.5]
    assert weighted_vote([[1, 0], [0, 1]], [1, 1]).tolist() == [0.5, 0.5]


def test_weights_beat_the_majority_where_judges_differ() -> None:
    gains = []
    for seed in range(20):
        verdicts, truth = simulated([0.9, 0.55, 0.5, 0.45, 0.3], 450, seed)
        learnt = weights(verdicts[:, :50], truth[:50])
        held_out = verdicts[:, 50:]
        panel, majority = (
            float(np.mean(weighted_vote(held_out, w) == truth[50:])) for w in (learnt, np.ones(5))
        )
        gains.append(panel - majority)
    assert np.mean(gains) > 0.2
    assert min(gains) > 0


@pytest.mark.parametrize(
    ("verdicts", "gold", "said"),
    [
        ([[1, 1]], [1, 1], "one class only"),
        ([[1, 0, 1]], [1, 0], "expected verdicts"),
        ([[1, 0.5]], [1, 0], "have to be 0 or 1"),
        ([[1, 0]], [1, 2], "have to be 0 or 1"),
    ],
)
def test_what_weights_refuse(verdicts: object, gold: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        weights(verdicts, gold)  # type: ignore[arg-type]


def test_dawid_skene_finds_truth_and_error_rates() -> None:
    draw = np.random.default_rng(3)
    truth = (draw.random(4000) < 0.3).astype(float)
    rates = [(0.9, 0.7), (0.6, 0.95), (0.8, 0.8), (0.7, 0.6)]
    verdicts = np.stack(
        [np.where(truth == 1, draw.random(4000) < s, draw.random(4000) > t) for s, t in rates]
    ).astype(float)
    verdicts[0, :500] = np.nan
    anchors = np.full(4000, np.nan)
    anchors[:40] = truth[:40]
    found = dawid_skene(verdicts, anchors)
    assert found.sensitivity_J == pytest.approx([s for s, _ in rates], abs=0.06)
    assert found.specificity_J == pytest.approx([t for _, t in rates], abs=0.06)
    assert found.prevalence == pytest.approx(0.3, abs=0.03)
    assert (found.chance_n[:40] == truth[:40]).all()
    majority = weighted_vote(verdicts, np.ones(4))
    assert np.mean((found.chance_n > 0.5) == truth) > np.mean(majority == truth) + 0.05


def test_shared_errors_mislead_dawid_skene_and_not_the_weights() -> None:
    """Three judges that are misled together: fifty anchors do not outweigh 550 items on which the
    three agree, so the model follows them. Weights are learnt from the anchors alone."""
    draw = np.random.default_rng(5)
    truth = (draw.random(600) < 0.5).astype(float)
    wrong = np.where(draw.random(600) < 0.7, 1 - truth, truth)
    noise = draw.random((3, 600)) < 0.1
    good = np.where(draw.random(600) < 0.15, 1 - truth, truth)
    verdicts = np.concatenate([np.where(noise, 1 - wrong, wrong), [good]])
    anchors = np.full(600, np.nan)
    anchors[:50] = truth[:50]
    model = dawid_skene(verdicts, anchors).chance_n > 0.5
    panel = weighted_vote(verdicts, weights(verdicts[:, :50], truth[:50]))
    assert np.mean(model[50:] == truth[50:]) < 0.5
    assert np.mean(panel[50:] == truth[50:]) > np.mean(model[50:] == truth[50:]) + 0.2


def test_dawid_skene_needs_anchors_of_both_classes() -> None:
    verdicts, truth = simulated([0.9, 0.8], 10, 0)
    for anchors in (np.full(10, np.nan), np.where(truth == 1, 1.0, np.nan)):
        with pytest.raises(ValueError, match="one class only"):
            dawid_skene(verdicts, anchors)
