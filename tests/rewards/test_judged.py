"""Rewards that a judge gives: values by hand, unscored verdicts, missing and wrong cards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from strop.errors import DataError, RecipeError, RewardError
from strop.judge.asking.forms import FormName
from strop.judge.asking.judges import TextJudge
from strop.judge.asking.question import Question, Ruling
from strop.judge.bias.sway import Sway, differences
from strop.judge.build import build_judge
from strop.recipe.judge import JudgeRecipe
from strop.recipe.loading.load import load
from strop.recipe.rubric import Criterion, Rubric
from strop.recipe.train import reward as recipes
from strop.recipe.train.reward import RewardComponent, RewardFile
from strop.rewards.compose import Reward
from strop.rewards.find import find_function
from strop.rewards.judged import JUDGED, judge_rank, judge_score, judge_win, rubric
from strop.types import Origin, Task
from tests.support.cards import card_of, write_card
from tests.support.scripted import Scripted
from tests.support.servers import chat_server


def judge(say: Any) -> TextJudge:
    return TextJudge(Scripted(lambda text, index: say(text)))


def shorter(text: str) -> str:
    """Prefers the shorter answer, and cannot say for those that hold a question mark."""
    first, second = (text.split(f"answer {name}\n")[1].split("\n")[0] for name in "AB")
    if "?" in first + second:
        return "Hard to say."
    return f"Verdict: {'A' if len(first) < len(second) else 'B'}"


def test_recipe_and_room_know_the_same_rewards() -> None:
    assert tuple(JUDGED) == recipes.JUDGED


def test_wins_against_a_baseline() -> None:
    said = [[{"role": "assistant", "content": text}] for text in ("Rhine.", "A long one.", "Po?")]
    prompts = [[{"role": "user", "content": "Name a river."}]] * 3
    found = judge_win(judge(shorter), {}, prompts, said, baseline=["The Rhine.", "Rhine.", "Po."])
    assert found == [1.0, 0.0, None]


def test_scores_and_ranks_within_a_prompt() -> None:
    prompts = ["p", "p", "q", "r", "r"]
    said = ["aaa", "b", "c", "dd", "d"]
    assert judge_score(judge(lambda text: "Score: 5"), prompts, said) == [0.5] * 5
    first = judge(lambda text: "Ranking: A > B")
    assert judge_rank(first, prompts, said) == [0.5, 0.5, None, 0.5, 0.5]

    def shortest(text: str) -> str:
        one, two = (text.split(f"answer {name}\n")[1].split("\n")[0] for name in "AB")
        return f"Ranking: {'A > B' if len(one) < len(two) else 'B > A'}"

    assert judge_rank(judge(shortest), prompts, said) == [0.0, 1.0, None, 0.0, 1.0]


def test_a_rubric() -> None:
    rules = Rubric(criteria=[Criterion(name="dose", text="It names a dose.", points=2),
                             Criterion(name="rude", text="It is rude.", points=-1)])  # fmt: skip
    asked = judge(lambda text: f"Met: {'yes' if 'names a dose' in text else 'no'}")
    found = rubric(asked, rules, ["p"], ["5 mg"])
    assert (found.values, found.parts) == ([1.0], {"dose": [1.0], "rude": [0.0]})
    once = judge(lambda text: "Score: 4")
    whole = rubric(once, rules, ["p"], ["5 mg"], implicit=True)
    assert (whole.values, whole.parts) == ([0.4], {})


def test_what_was_met_of_a_rubric_stands_beside_its_score(tmp_path: Path) -> None:
    """Every criterion is logged by its name, and only the rubric counts."""
    (tmp_path / "dose.yaml").write_text(
        "criteria:\n"
        "- {name: dose, text: It names a dose., points: 3}\n"
        "- {name: rude, text: It is rude., points: -1}\n"
    )

    def reply(body: dict[str, Any]) -> str:
        text = body["messages"][0]["content"]
        if "mute" in text:
            return "?"
        return f"Met: {'yes' if 'rude' in text or '5 mg' in text else 'no'}"

    with chat_server(reply) as server:
        row = files(tmp_path, server.url, uncalibrated="try")
        component = RewardComponent.model_validate(
            {**row, "function": "rubric", "rubric": str(tmp_path / "dose.yaml"), "weight": 2.0}
        )
        judged = Reward([component]).judge(["p"] * 3, ["5 mg", "none", "mute"], {})
    assert [dict(score.components) for score in judged.scores] == [
        {"rubric": pytest.approx(2 / 3), "rubric/dose": 1.0, "rubric/rude": 1.0},
        {"rubric": 0.0, "rubric/dose": 0.0, "rubric/rude": 1.0},
        {"rubric": None, "rubric/dose": None, "rubric/rude": None},
    ]
    assert [score.total for score in judged.scores] == [pytest.approx(4 / 3), 0.0, None]


def files(folder: Path, url: str, **more: str) -> dict[str, Any]:
    told = {"url": url, "model_name": "m", **more}
    (folder / "judge.yaml").write_text("".join(f"{key}: {value}\n" for key, value in told.items()))
    return {"function": "judge_win", "judge": str(folder / "judge.yaml")}


def test_a_component_asks_the_judge_of_its_file(tmp_path: Path) -> None:
    with chat_server(lambda body: shorter(body["messages"][0]["content"])) as server:
        component = RewardComponent.model_validate(files(tmp_path, server.url, uncalibrated="try"))
        reward = Reward([component])
        with pytest.raises(DataError, match="reads the column `baseline`"):
            reward.expect_columns([Task("p", {}, Origin("f", 1))])
        judged = reward.judge(["p", "p"], ["Rhine.", "Po?"], {"baseline": ["The Rhine.", "Po."]})
    assert [score.total for score in judged.scores] == [1.0, None]


def test_a_judge_without_a_card_says_why_or_is_refused(tmp_path: Path) -> None:
    component = RewardComponent.model_validate(files(tmp_path, "http://127.0.0.1:9/v1"))
    with pytest.raises(RecipeError, match="how far this judge agrees with people"):
        find_function(component)
    card = card_of(judge(shorter), judge={"model": "other"})
    write_card(tmp_path / "card.json", card)
    named = files(tmp_path, "http://127.0.0.1:9/v1", card="card.json")
    with pytest.raises(RecipeError, match="another judge"):
        find_function(RewardComponent.model_validate(named))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"function": "judge_win"}, "`judge` goes with"),
        ({"function": "exact_answer", "judge": "x.yaml"}, "`judge` goes with"),
        ({"function": "rubric", "judge": "x.yaml"}, "`rubric` goes with"),
        ({"function": "judge_win", "judge": "x.yaml", "rubric": "x.yaml"}, "`rubric` goes with"),
    ],
)
def test_mistakes_in_a_recipe(tmp_path: Path, row: dict[str, str], said: str) -> None:
    (tmp_path / "x.yaml").write_text("")
    paths = {key: str(tmp_path / value) for key, value in row.items() if key != "function"}
    with pytest.raises(ValueError, match=said):
        RewardFile.model_validate({"reward": [{**row, **paths}]})


def test_the_functions_take_what_rewards_are_given() -> None:
    """Columns may have the names of what is the rewards' own."""
    silent = judge(lambda text: "?")
    for function in (partial(judge_win, silent, {}), partial(judge_score, silent),
                     partial(judge_rank, silent)):  # fmt: skip
        found = function(
            prompts=["p"], completions=["c"], completion_ids=[[1]], baseline=["b"], judge=["x"],
            known=["y"], rubric=["z"],
        )  # fmt: skip
        assert found == [None]


class Sure:
    """Sure of the longer answer, by how much longer it is."""

    def identity(self) -> Mapping[str, Any]:
        return {"sure": "judge"}

    def rule(self, form: FormName, questions: Sequence[Question]) -> list[Ruling]:
        rulings = []
        for question in questions:
            if "?" in "".join(question.answers):
                rulings.append(Ruling(None, problem="nothing said"))
                continue
            odds = differences(question.answers)["length"] / 10
            won = float(odds > 0)
            rulings.append(Ruling((won, 1 - won), 1 / (1 + math.exp(-abs(odds)))))
        return rulings


def test_what_is_known_to_sway_a_judge_is_taken_out() -> None:
    said, baseline = ["a" * 30, "a" * 10, "a" * 20, "why?"], ["b" * 10, "b" * 30, "a" * 20, "b"]
    known = {"length": Sway(0.5, 0.4, 0.6, 10.0, linear=True)}
    raw = partial(judge_win, Sure(), {})(["p"] * 4, said, baseline=baseline, at_no_bias=True)
    assert raw == pytest.approx([1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2)), 0.5, None])
    half = judge_win(Sure(), known, ["p"] * 4, said, baseline=baseline, at_no_bias=True)
    # half of the odds are the sway's
    assert half == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1)), 0.5, None])
    unknown = {"length": Sway(0.5, -0.1, 1.1, 10.0, linear=True)}
    assert judge_win(Sure(), unknown, ["p"] * 4, said, baseline=baseline, at_no_bias=True) == raw
    with pytest.raises(RewardError, match="does not say how sure it is"):
        judge_win(judge(shorter), {}, ["p"], ["cc"], baseline=["b"], at_no_bias=True)


@pytest.mark.parametrize(
    ("function", "judge_file", "said"),
    [
        ("judge_win", "uncalibrated: a trial", "takes what the judge's card says"),
        ("judge_score", "uncalibrated: a trial", "judge_score has no option 'at_no_bias'"),
    ],
)
def test_taking_out_takes_a_card(tmp_path: Path, function: str, judge_file: str, said: str) -> None:
    row = files(tmp_path, "http://127.0.0.1:9/v1")
    Path(row["judge"]).write_text(f"url: http://127.0.0.1:9/v1\nmodel_name: m\n{judge_file}\n")
    component = RewardComponent.model_validate(
        {**row, "function": function, "options": {"at_no_bias": True}}
    )
    with pytest.raises(RewardError, match=said):
        find_function(component)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reliability": None}, "does not say how sure it is"),
        ({"sways": {}}, "says nothing of length"),
        ({"sways": {"length": asdict(Sway(1.0, 0.5, 1.5, 9.0, linear=False))}}, "are of verdicts"),
    ],
)
def test_taking_out_takes_the_right_card(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    row = files(tmp_path, "http://127.0.0.1:9/v1", card="card.json")
    asked = build_judge(load(JudgeRecipe, row["judge"]))
    sway = asdict(Sway(1.0, 0.5, 1.5, 9.0, linear=True))
    good = {"reliability": {}, "sways": {"length": sway}}
    write_card(tmp_path / "card.json", card_of(asked, **good))
    component = RewardComponent.model_validate({**row, "options": {"at_no_bias": True}})
    assert find_function(component).args[1] == {"length": Sway(**sway)}  # type: ignore[attr-defined]
    write_card(tmp_path / "card.json", card_of(asked, **{**good, **changes}))
    with pytest.raises(RewardError, match=said):
        find_function(component)


@pytest.mark.parametrize(
    ("function", "options"),
    [("judge_win", {"at_no_bais": True}), ("judge_rank", {"implicit": True}),
     ("judge_score", {"low": 1})],
)  # fmt: skip
def test_an_option_that_is_not_there_is_refused(
    tmp_path: Path, function: str, options: dict[str, Any]
) -> None:
    row = files(tmp_path, "http://127.0.0.1:9/v1", uncalibrated="try")
    component = RewardComponent.model_validate({**row, "function": function, "options": options})
    with pytest.raises(RewardError, match=f"has no option '{next(iter(options))}'"):
        find_function(component)
