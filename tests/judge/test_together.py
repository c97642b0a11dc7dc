"""Panels as judges: votes by hand, weights from cards, who is asked in an escalation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strop.errors import RecipeError, RewardError, UsageError
from strop.judge.asking.family import expect_other_family
from strop.judge.asking.forms import FormName
from strop.judge.asking.judges import in_both_orders
from strop.judge.asking.question import Question, Ruling
from strop.judge.build import build_judge, judge_hash
from strop.judge.pairwise import compare, cost_of
from strop.judge.panel.together import NOBODY, UNSURE, Chain, Voters
from strop.judge.panel.votes import log_odds
from strop.recipe.judge import JudgeRecipe
from strop.recipe.loading.load import load
from strop.types import Usage
from tests.support.cards import card_of, write_card

PAIR = Question("1", "Name a river.", ("The Rhine.", "Rain."))


@dataclass
class Fixed:
    """Says the same of every question, straight or swapped: (value of the first, confidence)."""

    says: tuple[float | None, float | None]
    width: int = 2
    asked: list[str] = field(default_factory=list)

    def identity(self) -> Mapping[str, Any]:
        return {"fixed": list(self.says)}

    def rule(self, form: FormName, questions: Sequence[Question]) -> list[Ruling]:
        self.asked += [question.item for question in questions]
        return [self._one(question) for question in questions]

    def _one(self, question: Question) -> Ruling:
        value, confidence = self.says
        if value is None:
            return Ruling(None)
        ruling = Ruling((value, 1 - value)[: self.width], confidence)
        return ruling.turned() if question.item.endswith("swapped") else ruling


YES, NO, TIE, MUTE = (Fixed((value, None)) for value in (1.0, 0.0, 0.5, None))


@pytest.mark.parametrize(
    ("judges", "values", "confidence"),
    [
        ((YES, YES, NO), (1.0, 0.0), 2.5 / 4),
        ((YES, NO), (0.5, 0.5), 0.5),
        ((YES, MUTE, MUTE), (1.0, 0.0), 1.5 / 2),
        ((YES, TIE, NO, NO), (0.0, 1.0), 3 / 5),
        ((MUTE, MUTE), None, None),
    ],
)
def test_a_majority(
    judges: tuple[Fixed, ...], values: tuple[float, ...] | None, confidence: float | None
) -> None:
    [found] = Voters(judges).rule("pairwise", [PAIR])
    assert found.values == values
    assert found.confidence == (None if confidence is None else pytest.approx(confidence))
    assert found.problem == (NOBODY if values is None else "")


def test_weights_are_log_odds_and_may_be_negative() -> None:
    """Right on 0.9, 0.7 and 0.3: the last one's vote counts for the other side."""
    weight_J = tuple(math.log(a / (1 - a)) for a in (0.9, 0.7, 0.3))
    [found] = Voters((YES, NO, NO), weight_J).rule("pairwise", [PAIR])
    total = weight_J[0] - weight_J[1] - weight_J[2]
    assert found == Ruling((1.0, 0.0), pytest.approx(1 / (1 + math.exp(-total))))
    # 0.9 against two of 0.7 is won by the one: 9 against 5.4
    weight_J = tuple(math.log(a / (1 - a)) for a in (0.9, 0.7, 0.7))
    assert Voters((NO, YES, YES), weight_J).rule("pairwise", [PAIR])[0].values == (0.0, 1.0)
    assert Voters((NO, YES, YES)).rule("pairwise", [PAIR])[0].values == (1.0, 0.0)
    assert log_odds(0.75, 100) == pytest.approx(math.log(75.5 / 25.5))


def test_the_confidence_of_a_weighted_vote_is_how_often_it_is_right() -> None:
    """Three independent judges of known accuracy."""
    draw = np.random.default_rng(4)
    accuracy = np.array([0.85, 0.7, 0.6])
    voters = tuple(math.log(a / (1 - a)) for a in accuracy)
    told: dict[float, list[bool]] = {}
    for _ in range(4000):
        truth = float(draw.random() < 0.5)
        votes = np.where(draw.random(3) < accuracy, truth, 1 - truth)
        [found] = Voters(tuple(Fixed((v, None)) for v in votes.tolist()), voters).rule(
            "pairwise", [PAIR]
        )
        assert found.values is not None
        told.setdefault(round(found.confidence or 0, 6), []).append(found.values[0] == truth)
    assert len(told) == 4
    for confidence, right in told.items():
        error = 3 * math.sqrt(confidence * (1 - confidence) / len(right))
        assert np.mean(right) == pytest.approx(confidence, abs=error)


def test_a_panel_costs_what_all_of_its_judges_cost() -> None:
    class Dear(Fixed):
        def _one(self, question: Question) -> Ruling:
            return replace(super()._one(question), said="Hm.", usage=Usage(100, 10))

    sure, unsure = Dear((1.0, 0.9)), Dear((1.0, 0.5))
    questions = [Question(item, "p", ("a", "b")) for item in "12"]
    assert cost_of(compare(Voters((sure, unsure)), questions)) == Usage(800, 80)
    [found] = Voters((sure, unsure, MUTE)).rule("pairwise", [PAIR])
    assert (found.said, found.usage) == ("Hm.\n---\nHm.", Usage(200, 20))
    assert cost_of(compare(Chain((unsure, sure), (0.8, 0.8)), questions)) == Usage(800, 80)
    assert cost_of(compare(Chain((sure, unsure), (0.8, 0.8)), questions)) == Usage(400, 40)
    # what nobody is sure of was paid for, too
    assert cost_of(compare(Chain((unsure, unsure), (0.8, 0.8)), questions)) == Usage(800, 80)


def test_an_averaged_ranking_is_a_verdict() -> None:
    """Two good judges outvote one that likes what is shown first, in both orders."""
    good = Fixed((1.0, None))

    class First(Fixed):
        def _one(self, question: Question) -> Ruling:
            return Ruling((1.0, 0.0))

    questions = [Question(item, "p", ("a", "b")) for item in "12"]
    panel = Voters((good, good, First((1.0, None))))
    found = compare(panel, questions, form="ranking")
    assert [one.verdict for one in found] == [1.0, 1.0]
    assert found[0].swapped.values == (pytest.approx(2 / 3), pytest.approx(1 / 3))


def test_scores_are_averaged_and_criteria_counted() -> None:
    one = Question("1", "p", ("a",), criterion="c")
    scores = Voters((Fixed((0.2, None), 1), Fixed((0.7, None), 1), Fixed((None, None), 1)))
    assert scores.rule("score", [one])[0].values == (pytest.approx(0.45),)
    met = Voters((Fixed((1.0, None), 1), Fixed((1.0, None), 1), Fixed((0.0, None), 1)))
    assert met.rule("criterion", [one])[0].values == (1.0,)
    with pytest.raises(UsageError, match="weights are of votes"):
        Voters((YES, NO), (1.0, 1.0)).rule("score", [one])


def test_an_escalation_asks_the_dear_judge_only_of_what_the_cheap_one_is_not_sure_of() -> None:
    def says(item: str) -> Ruling:
        confidence = {"1": 0.95, "2": 0.6, "3": 0.95}[item]
        return Ruling((1.0, 0.0), confidence)

    class Cheap(Fixed):
        def _one(self, question: Question) -> Ruling:
            straight = question.item.removesuffix(" swapped")
            ruling = says(straight)
            swapped = straight != question.item
            if straight == "3":  # likes what is shown first
                return ruling
            return ruling.turned() if swapped else ruling

    cheap, dear = Cheap((1.0, 0.9)), Fixed((0.0, 0.9))
    questions = [Question(item, "p", ("a", "b")) for item in "123"]
    compared = compare(Chain((cheap, dear), (0.9, 0.8)), questions)
    assert [one.verdict for one in compared] == [1.0, 0.0, 0.0]
    assert len(cheap.asked) == 6
    assert sorted(dear.asked) == ["2", "2 swapped", "3", "3 swapped"]
    unsure = compare(Chain((cheap, dear), (0.9, None)), questions)
    assert [one.verdict for one in unsure] == [1.0, None, None]
    assert unsure[1].straight.problem == UNSURE
    with pytest.raises(UsageError, match="not of a score"):
        Chain((cheap,), (0.9,)).rule("score", [])


def test_an_escalation_keeps_the_agreement_that_the_cards_promise() -> None:
    """A cheap judge that is right as often as it says, above 0.9; a dear one that is right on 95 %.
    Of the verdicts that are kept at least nine in ten are right."""
    draw = np.random.default_rng(8)
    truth = {str(n): float(draw.random() < 0.5) for n in range(2000)}

    class Calibrated(Fixed):
        def __init__(self, low: float) -> None:
            super().__init__((1.0, 0.5))
            self.known = {}
            for item, right in truth.items():
                sure = float(draw.uniform(low, 1.0))
                value = right if draw.random() < sure else 1 - right
                self.known[item] = Ruling((value, 1 - value), sure)

        def _one(self, question: Question) -> Ruling:
            straight = question.item.removesuffix(" swapped")
            ruling = self.known[straight]
            return ruling if straight == question.item else ruling.turned()

    chain = Chain((Calibrated(0.5), Calibrated(0.9)), (0.85, 0.9))
    questions = [Question(item, "p", ("a", "b")) for item in truth]
    straight, _ = in_both_orders(chain, "pairwise", questions)
    right = [
        ruling.values[0] == truth[question.item]
        for ruling, question in zip(straight, questions, strict=True)
        if ruling.values is not None
    ]
    assert len(right) == 2000
    assert np.mean(right) == pytest.approx(0.3 * 0.925 + 0.7 * 0.95, abs=0.015)


class TestFromFiles:
    def member(self, folder: Path, name: str, right: float = 0.8, **more: Any) -> str:
        (folder / f"{name}.jsonl").write_text('{"item": "1", "completion": "Verdict: A"}\n')
        judge = build_judge(JudgeRecipe(recorded=str(folder / f"{name}.jsonl")))
        card = card_of(judge, better_than_chance=right > 0.5, right={"mean": right}, **more)
        write_card(folder / f"{name}.json", card)
        (folder / f"{name}.yaml").write_text(f"recorded: {name}.jsonl\ncard: {name}.json\n")
        return str(folder / f"{name}.yaml")

    def test_weights_come_from_cards(self, tmp_path: Path) -> None:
        files = [self.member(tmp_path, "good", 0.9), self.member(tmp_path, "bad", 0.3)]
        judge = build_judge(JudgeRecipe(panel=files, vote="weighted"))
        assert isinstance(judge, Voters)
        assert judge.weight_J == pytest.approx([math.log(90.5 / 10.5), math.log(30.5 / 70.5)])

    def test_confidences_come_from_cards(self, tmp_path: Path) -> None:
        files = [self.member(tmp_path, "cheap", threshold={"confidence": 0.8}),
                 self.member(tmp_path, "dear")]  # fmt: skip
        judge = build_judge(JudgeRecipe(panel=files, vote="escalate"))
        assert isinstance(judge, Chain)
        assert judge.sure_J == (0.8, None)

    def test_mistakes(self, tmp_path: Path) -> None:
        good = self.member(tmp_path, "good")
        (tmp_path / "bare.yaml").write_text("recorded: good.jsonl\n")
        bare = str(tmp_path / "bare.yaml")
        with pytest.raises(RecipeError, match="takes what the card says of each judge"):
            build_judge(JudgeRecipe(panel=[good, bare], vote="weighted"))
        scores = self.member(tmp_path, "scores", form="score")
        with pytest.raises(RecipeError, match="has to be of pairs, not of score"):
            build_judge(JudgeRecipe(panel=[good, scores], vote="weighted"))
        with pytest.raises(RecipeError, match="often enough at any confidence"):
            build_judge(JudgeRecipe(panel=[good, good], vote="escalate"))
        (tmp_path / "panel.yaml").write_text("panel: [good.yaml, bare.yaml]\n")
        with pytest.raises(RecipeError, match="is a panel itself"):
            build_judge(JudgeRecipe(panel=[good, str(tmp_path / "panel.yaml")]))
        for row, said in (
            ({"panel": [good]}, "at least 2"),
            ({"panel": [good, bare], "by_likelihood": True}, "belong into the files"),
            ({"recorded": good, "vote": "weighted"}, "is for a panel"),
            ({"recorded": good, "panel": [good, bare]}, "name two judges"),
        ):
            with pytest.raises((ValueError, RecipeError), match=said):
                load(JudgeRecipe, row)

    def test_members_of_the_policys_family_are_refused(
        self, tmp_path: Path, model_folder: Path
    ) -> None:
        (tmp_path / "own.yaml").write_text(f"model: {model_folder}\n")
        files = [self.member(tmp_path, "good"), str(tmp_path / "own.yaml")]
        with pytest.raises(RewardError, match="own family"):
            expect_other_family(JudgeRecipe(panel=files), str(model_folder), "panel.yaml")
        told = JudgeRecipe(panel=files, same_family="there is no other")
        expect_other_family(told, str(model_folder), "panel.yaml")

    def test_the_hash_is_of_what_verdicts_depend_on(self, tmp_path: Path) -> None:
        self.member(tmp_path, "good")
        (tmp_path / "panel.yaml").write_text("panel: [good.yaml, good.yaml]\n")
        before = [judge_hash(tmp_path / name) for name in ("good.yaml", "panel.yaml")]
        moved = tmp_path / "moved"
        moved.mkdir()
        for name in ("good.yaml", "good.json", "good.jsonl", "panel.yaml"):
            (moved / name).write_text((tmp_path / name).read_text())
        assert [judge_hash(moved / name) for name in ("good.yaml", "panel.yaml")] == before
        (moved / "good.jsonl").write_text('{"item": "1", "completion": "Verdict: B"}\n')
        (moved / "good.json").unlink()
        (moved / "good.yaml").write_text("recorded: good.jsonl\n")
        after = [judge_hash(moved / name) for name in ("good.yaml", "panel.yaml")]
        assert all(one != other for one, other in zip(before, after, strict=True))
