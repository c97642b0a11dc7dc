"""Rubrics and rankings: points by hand, missing verdicts, files with mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from strop.errors import RecipeError
from strop.judge.asking.judges import TextJudge
from strop.judge.asking.question import Question
from strop.judge.ranking import pick, rank
from strop.judge.rubric import Grade, grade, points
from strop.recipe.rubric import Rubric, read_rubric
from tests.support.scripted import Scripted

TEXT = """
[[criteria]]
name = "dose"
text = "It names the dose."
points = 5

[[criteria]]
name = "warns"
text = "It warns of alcohol."
points = 3

[[criteria]]
name = "invents"
text = "It quotes a study that does not exist."
points = -4
"""


@pytest.fixture
def rubric(tmp_path: Path) -> Rubric:
    (tmp_path / "dose.toml").write_text(TEXT)
    return read_rubric(tmp_path / "dose.toml")


def judge(**met: str) -> TextJudge:
    """Says yes or no to a criterion by a word of its text; nothing for others."""

    def say(text: str, index: int) -> str:
        asked = text.partition("The criterion: ")[2].partition("\n")[0]
        said = next((answer for word, answer in met.items() if word in asked), "perhaps")
        return f"So it seems.\nMet: {said}"

    return TextJudge(Scripted(say))


@pytest.mark.parametrize(
    ("met", "share"),
    [((1, 1, 0), 1.0), ((1, 0, 0), 5 / 8), ((1, 0, 1), 1 / 8), ((0, 0, 1), 0.0), ((0, 0, 0), 0.0)],
)
def test_points_by_hand(rubric: Rubric, met: tuple[int, ...], share: float) -> None:
    names = ("dose", "warns", "invents")
    assert points(rubric, dict(zip(names, map(float, met), strict=True))) == pytest.approx(share)


def test_every_criterion_is_asked_about_by_itself(rubric: Rubric) -> None:
    asked = judge(dose="yes", alcohol="no", study="yes")
    found = grade(asked, rubric, [("How much?", "Take 5 mg."), ("How much?", "Much.")])
    assert found[0] == Grade(1 / 8, {"dose": 1.0, "warns": 0.0, "invents": 1.0})
    assert len(asked.engine.asked) == 6  # type: ignore[attr-defined]


def test_a_criterion_without_a_verdict_leaves_the_answer_without_a_score(rubric: Rubric) -> None:
    (found,) = grade(judge(dose="yes", study="no"), rubric, [("How much?", "Take 5 mg.")])
    assert found.score is None
    assert found.criteria == {"dose": 1.0, "warns": None, "invents": 0.0}
    assert found.problem == "no clear verdict in its words"


def test_implicit_grades_show_all_criteria_at_once(rubric: Rubric) -> None:
    engine = Scripted(lambda text, index: "Score: 6")
    (found,) = grade(TextJudge(engine), rubric, [("How much?", "5 mg.")], aggregation="implicit")
    assert found == Grade(0.6, {})
    ((words, _),) = engine.asked
    assert "It names the dose. (+5 points)" in words
    assert "does not exist. (-4 points)" in words


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("points = 5", "points = 0"), "0 points never counts"),
        (('name = "warns"', 'name = "dose"'), "share a name"),
        (("points = 5", "weight = 5"), "weight"),
        (("[[criteria]]", "[[criteria"), "no TOML"),
        ((TEXT, ""), "criteria"),
    ],
)
def test_mistakes_in_a_rubric(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(TEXT.replace(*change))
    with pytest.raises(RecipeError, match=said) as caught:
        read_rubric(path)
    assert "wrong.toml" in str(caught.value)


def test_json_holds_the_same(tmp_path: Path, rubric: Rubric) -> None:
    path = tmp_path / "dose.json"
    path.write_text(json.dumps(rubric.plain()))
    assert read_rubric(path) == rubric
    path.write_text('{"criteria": [{"name": "a", "text": "b", "points": -1}]}')
    with pytest.raises(RecipeError, match="could only lose"):
        read_rubric(path)


class TestRanking:
    QUESTION = Question("1", "Name a river.", ("The Rhine.", "Rain.", "The Po.", "Rain."))

    def by_length(self, text: str, index: int) -> str:
        """Longer answers first; equals in the order in which they stand."""
        blocks = [part.partition("\n") for part in text.split(" answer ")[1:]]
        named = {block[0]: block[2].split("\n")[0] for block in blocks if len(block[0]) == 1}
        return "Ranking: " + " > ".join(sorted(named, key=lambda name: -len(named[name])))

    def test_the_mean_of_both_orders_and_equals_share(self) -> None:
        (found,) = rank(TextJudge(Scripted(self.by_length)), [self.QUESTION])
        assert found == (1.0, 0.0, 0.5, 0.0)
        assert pick(found) == 0

    def test_a_taste_for_the_first_place_gives_nobody_an_advantage(self) -> None:
        engine = Scripted(lambda text, index: "Ranking: A > B > C")
        (found,) = rank(TextJudge(engine), [self.QUESTION])
        assert found == (0.5, 0.5, 0.5, 0.5)

    def test_one_missing_order_is_no_ranking_and_one_answer_needs_none(self) -> None:
        said = iter(["Ranking: A > B > C", "I cannot say."])
        engine = Scripted(lambda text, index: next(said))
        same = Question("2", "p", ("a", "a"))
        assert rank(TextJudge(engine), [same, self.QUESTION]) == [(0.5, 0.5), None]
