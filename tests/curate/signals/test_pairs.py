"""Pairs out of several answers: by score, by verdict and length; hand-computed and known truth."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from strop.curate.signals.build import build
from strop.curate.signals.pairs import (
    balanced,
    best_against,
    nearest_in_length,
)
from strop.recipe.train.data import DataSource
from strop.stats.auc import auc, longer_share
from tests.support import ROOT

DATA = Path(os.environ.get("STROP_DATA", ROOT.parent / "shared/data"))
DRAWS = [(150, 220), (150, 240), (170, 240), (170, 260)]
"""Characters; each gives an AUC of length of 0.7 or more."""
RENAMED = {"prompt": "question", "completion": "solution", "correct": "is_correct"}

lengths = st.lists(st.integers(1, 60), min_size=0, max_size=7)


class TestBestAgainst:
    def test_by_hand(self) -> None:
        """Mean 0.475, standard deviation 0.2861: the aim is -0.097, nearest is 0.1."""
        assert best_against([0.9, 0.5, 0.4, 0.1]) == (0, 3, pytest.approx(0.8))

    def test_an_outlier_below_the_aim_is_not_taken(self) -> None:
        """Twenty answers around 5 and one at -40: mean 3.05, deviation 9.73, aim -16.4. The nearest
        to that is 2, not -40, which is what the minimum would take."""
        scores = [5.0] * 9 + [8.0] + [4.0] * 9 + [2.0, -40.0]
        best, worse, margin = best_against(scores) or (0, 0, 0.0)
        aim = np.mean(scores) - 2 * np.std(scores)
        assert (best, scores[worse], margin) == (9, 2.0, 6.0)
        assert abs(2.0 - aim) < abs(-40.0 - aim)

    def test_equal_scores_make_no_pair_and_the_first_of_equals_is_taken(self) -> None:
        assert best_against([0.5, 0.5, 0.5]) is None
        assert best_against([0.5]) is best_against([]) is None
        assert best_against([0.2]) is None
        assert best_against([1.0, 0.0, 1.0, 0.0]) == (0, 1, 1.0)

    def test_known_truth(self) -> None:
        """Of normal scores the rejected lies two deviations below the mean as answers grow, where
        the minimum goes on falling."""
        drawn = np.random.default_rng(0)
        found, least = [], []
        for _ in range(400):
            scores = drawn.normal(0, 1, 400)
            pair = best_against(scores.tolist())
            assert pair is not None
            assert scores[pair[0]] == scores.max()
            found.append(scores[pair[1]])
            least.append(scores.min())
        assert np.mean(found) == pytest.approx(-2, abs=0.02)
        assert np.mean(least) < -2.8

    @given(st.lists(st.integers(-9, 9), min_size=1, max_size=12))
    def test_the_margin_is_positive_or_there_is_no_pair(self, scores: list[int]) -> None:
        pair = best_against(scores)
        if pair is None:
            assert len(set(scores)) == 1
        else:
            best, worse, margin = pair
            assert scores[best] == max(scores)
            assert margin == scores[best] - scores[worse] > 0


class TestNearestInLength:
    def test_by_hand(self) -> None:
        assert nearest_in_length([10, 50], [48, 30, 12]) == [(0, 2), (1, 0)]
        assert nearest_in_length([], [3]) == []
        assert nearest_in_length([7], [1, 8, 90]) == [(0, 1)]

    def test_the_nearest_first_is_not_the_best_of_all(self) -> None:
        """Nearest first pairs 13 with 12 and leaves 10 to 22: 1 + 12. In order it is 2 + 9."""
        assert nearest_in_length([10, 13], [12, 22]) == [(0, 0), (1, 1)]

    @settings(max_examples=150)
    @given(lengths, lengths)
    def test_as_cheap_as_the_assignment_of_scipy(self, right: list[int], wrong: list[int]) -> None:
        pairs = nearest_in_length(right, wrong)
        assert len(pairs) == min(len(right), len(wrong))
        for side in zip(*pairs, strict=True):
            assert len(set(side)) == len(side)
        if pairs:
            cost = np.abs(np.subtract.outer(right, wrong))
            rows, columns = linear_sum_assignment(cost)
            assert sum(cost[r, w] for r, w in pairs) == cost[rows, columns].sum()


class TestLengthBalance:
    @given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12))
    def test_the_auc_counts_all_pairs_of_answers(self, pairs: list[tuple[int, int]]) -> None:
        chosen, rejected = zip(*pairs, strict=True)
        won = [1.0 if c > r else 0.5 if c == r else 0.0 for c in chosen for r in rejected]
        assert auc(chosen, rejected) == pytest.approx(sum(won) / len(won))
        own = [1.0 if c > r else 0.5 if c == r else 0.0 for c, r in pairs]
        assert longer_share(chosen, rejected) == pytest.approx(sum(own) / len(own))

    def test_balanced_pairs_stay(self) -> None:
        sizes = np.random.default_rng(1).integers(20, 200, (2, 300)).tolist()
        found = balanced(*sizes)
        assert found.kept == list(range(300))
        assert found.before == found.after

    @pytest.mark.parametrize("seed", range(4))
    def test_a_planted_bias_goes(self, seed: int) -> None:
        """Of pairs of random lengths the longer one is chosen seven times in ten."""
        drawn = np.random.default_rng(seed)
        sizes = np.sort(drawn.integers(20, 400, (400, 2)), axis=1)
        longer = drawn.random(400) < 0.7
        chosen = np.where(longer, sizes[:, 1], sizes[:, 0])
        rejected = np.where(longer, sizes[:, 0], sizes[:, 1])
        found = balanced(chosen.tolist(), rejected.tolist())
        assert found.before > 0.58
        assert abs(found.after - 0.5) <= 0.05
        assert abs(found.share - 0.5) <= 0.05
        assert len(found.kept) >= 200
        again = auc(chosen[found.kept], rejected[found.kept])
        assert again == pytest.approx(found.after)

    def test_the_shorter_may_be_the_chosen_ones(self) -> None:
        drawn = np.random.default_rng(3)
        sizes = drawn.integers(20, 400, (2, 300))
        chosen, rejected = sizes[0], sizes[1] + 90
        found = balanced(chosen.tolist(), rejected.tolist())
        assert found.before < 0.4
        assert abs(found.after - 0.5) <= 0.05

    def test_half_stays_where_half_is_not_enough(self) -> None:
        """Every chosen answer is longer than every rejected one: no choice of pairs helps."""
        found = balanced(list(range(100, 200)), list(range(100)))
        assert (found.before, found.after, len(found.kept)) == (1.0, 1.0, 50)

    def test_few_pairs_stay_as_they_are(self) -> None:
        assert balanced([9] * 19, [1] * 19).kept == list(range(19))
        assert balanced([], []).kept == []


@pytest.mark.realdata
class TestModelSolutions:
    """Real solutions of two models to GSM8K, each known to be right or wrong."""

    @pytest.fixture
    def solved(self) -> list[dict[str, object]]:
        path = DATA / "gsm8k/model_solutions.jsonl.gz"
        if not path.exists():
            pytest.skip(f"no public data at {path} (set STROP_DATA)")
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]

    def test_right_and_wrong_answers_become_pairs(
        self, solved: list[dict[str, object]], tmp_path: Path
    ) -> None:
        source = DataSource(path=str(DATA / "gsm8k/model_solutions.jsonl.gz"), columns=RENAMED)
        built = build([source], tmp_path / "out")
        assert built.interactions == len(solved) == 2638
        verdicts: dict[object, set[object]] = {}
        for row in solved:
            verdicts.setdefault(row["question"], set()).add(row["is_correct"])
        mixed = [question for question, said in verdicts.items() if len(said) == 2]
        lines = (tmp_path / "out/preferences.jsonl").read_text().splitlines()
        pairs = [json.loads(line) for line in lines]
        assert len(pairs) == built.records["preference"] == len(mixed) > 300
        right = {(row["question"], row["solution"]): row["is_correct"] for row in solved}
        for pair in pairs:
            asked = pair["prompt"][0]["content"]
            assert right[asked, pair["chosen"][0]["content"]] is True
            assert right[asked, pair["rejected"][0]["content"]] is False
        assert built.records["task"] == len(verdicts)
        assert built.unknown["answers"] == {"ground_truth": 2638, "model": 2638}

    @pytest.mark.parametrize(("longer_than", "shorter_than"), DRAWS)
    def test_length_alone_tells_them_apart_and_then_no_longer(
        self,
        solved: list[dict[str, object]],
        tmp_path: Path,
        longer_than: int,
        shorter_than: int,
    ) -> None:
        """Drawn: questions whose right solution is long and whose wrong one is short."""
        path = tmp_path / "biased.jsonl"
        rows = biased(solved, longer_than, shorter_than)
        path.write_text("\n".join(map(json.dumps, rows)))
        source = DataSource(path=str(path), columns=RENAMED)
        lengths = build([source], tmp_path / "out").lengths
        assert lengths is not None
        assert lengths.before >= 0.7
        assert 0.45 <= lengths.after <= 0.55
        assert len(lengths.kept) >= lengths.of / 2
        lines = (tmp_path / "out/preferences.jsonl").read_text().splitlines()
        sides = [[len(json.loads(line)[s][0]["content"]) for line in lines]
                 for s in ("chosen", "rejected")]  # fmt: skip
        assert auc(*sides) == pytest.approx(lengths.after)


def biased(
    solved: list[dict[str, object]], longer_than: int, shorter_than: int
) -> list[dict[str, object]]:
    """The rows of questions with a right solution of more and a wrong one of fewer characters."""
    by_question: dict[object, list[dict[str, object]]] = {}
    for row in solved:
        by_question.setdefault(row["question"], []).append(row)
    rows = []
    for both in by_question.values():
        right = [len(str(row["solution"])) for row in both if row["is_correct"]]
        wrong = [len(str(row["solution"])) for row in both if not row["is_correct"]]
        if right and wrong and right[0] > longer_than and wrong[0] < shorter_than:
            rows += both
    return rows
