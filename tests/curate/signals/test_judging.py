"""Pairs that a judge makes of answers which nobody said anything about."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from strop.cli.app import app
from strop.errors import DataError, RecipeError
from strop.judge.asking.forms import FormName
from strop.judge.asking.question import Question, Ruling
from strop.judge.build import TrustedJudge
from strop.judge.trust.anchors import read_pairs
from tests.support.exports import Make

CARD = {"reliability": {}, "threshold": {"confidence": 0.8}}


@dataclass
class Planned:
    """Likes the answer with the higher quality, `"quality 7: ..."`. The first word of the prompt
    says what is wrong with it: `first` likes what is shown first, `mute` has no verdict, `half` has
    none for the opposite order, `unsure` is."""

    asked: list[Question] = field(default_factory=list)

    def identity(self) -> Mapping[str, Any]:
        return {"planned": "judge"}

    def rule(self, form: FormName, questions: Sequence[Question]) -> list[Ruling]:
        assert form == "pairwise"
        self.asked += questions
        return [self._one(question) for question in questions]

    def _one(self, question: Question) -> Ruling:
        assert not isinstance(question.prompt, str)
        how = str(question.prompt[-1]["content"]).split()[0]
        one, other = (int(text.split()[1].rstrip(":")) for text in question.answers)
        if how == "mute" or (how == "half" and question.item.endswith("swapped")):
            return Ruling(None, problem="nothing said")
        won = 1.0 if how == "first" else float(one > other)
        return Ruling((won, 1 - won), 0.6 if how == "unsure" else 0.9)


def answers(prompt: str, *qualities: int) -> dict[str, Any]:
    return {"prompt": prompt, "completions": [f"quality {q}: {prompt}" for q in qualities]}


def quality(text: Any) -> int:
    said = text if isinstance(text, str) else text[-1]["content"]
    return int(said.split()[1].rstrip(":"))


def test_consistent_and_sure_verdicts_become_pairs_and_the_rest_is_counted(make: Make) -> None:
    rows = [
        answers("fair 1", 3, 8, 5, 1),  # two pairs
        answers("fair 2", 3, 8, 5),  # one pair, one answer is left
        answers("fair 3", 4),
        answers("first", 1, 2),
        answers("mute", 1, 2),
        answers("half", 1, 2),
        answers("unsure", 1, 2),
        answers("fair 4", 6, 6),
    ]
    judge = Planned()
    made = make(rows, trusted=TrustedJudge(judge, CARD))
    assert made.adds_up()
    assert made.built.judged == {
        "kept": 3, "judge_missing": 2, "judge_disagrees": 1, "judge_unsure": 1,
    }  # fmt: skip
    assert made.built.left_out == {
        "judge_missing": 2, "judge_disagrees": 1, "judge_unsure": 1, "one_answer": 1,
        "same_answer": 1,
    }  # fmt: skip
    pairs = made["preferences"]
    assert len(pairs) == 3
    assert all(quality(row["chosen"]) > quality(row["rejected"]) for row in pairs)
    assert {(row["meta"]["signal"], row["confidence"]) for row in pairs} == {("judge", 0.9)}
    # no answer stands in two pairs, and every pair was asked about in both orders
    used = [
        (str(row["prompt"]), quality(row[side])) for row in pairs for side in ("chosen", "rejected")
    ]
    assert len(set(used)) == len(used)
    assert len(judge.asked) == 2 * 7


def test_an_answer_without_words_is_left_out(make: Make) -> None:
    """A thought that was never closed says nothing; thoughts make no difference."""
    rows = [
        {"prompt": "fair 1", "completions": ["<think>never closed", "quality 3: x"]},
        {"prompt": "fair 2",
         "completions": ["<think>a</think>quality 3: x", "<think>b</think>quality 3: x"]},
    ]  # fmt: skip
    judge = Planned()
    made = make(rows, trusted=TrustedJudge(judge, CARD))
    assert made.adds_up()
    assert made.built.left_out == {"nothing_said": 1, "same_answer": 1}
    assert judge.asked == []


def test_what_people_said_comes_first(make: Make) -> None:
    """A signal makes its own pair; the judge is given only what nobody spoke of."""
    spoken = answers("fair", 1, 9) | {"choice": 0}
    judge = Planned()
    made = make([spoken, answers("fair too", 1, 2)], trusted=TrustedJudge(judge, CARD))
    assert {(quality(row["chosen"]), quality(row["rejected"])) for row in made["preferences"]} == {
        (1, 9), (2, 1),
    }  # fmt: skip
    assert len(judge.asked) == 2


def test_rows_of_one_prompt_are_compared(make: Make) -> None:
    rows = [{"prompt": "fair", "completion": f"quality {q}: x"} for q in (2, 7)]
    made = make(rows, trusted=TrustedJudge(Planned(), CARD))
    assert made.adds_up()
    assert [(quality(row["chosen"]), quality(row["rejected"])) for row in made["preferences"]] == [
        (7, 2)
    ]


def test_without_a_judge_such_answers_are_without_signal(make: Make) -> None:
    made = make([answers("fair", 1, 2), answers("odd", 1, 2) | {"choice": 1}])
    assert (made.built.without_signal, made.built.judged) == (1, {})


def test_some_are_for_a_person_to_verify_blind(make: Make, tmp_path: Path) -> None:
    rows = [answers(f"fair {n}", n, 500 - n) for n in range(200)]
    made = make(rows, trusted=TrustedJudge(Planned(), CARD))
    verify = made["verify"]
    assert len(verify) == 50
    file = tmp_path / "verify.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in verify))
    assert len(read_pairs(file)) == 50
    firsts = [row["judge"] == "A" for row in verify]
    assert 10 < sum(firsts) < 40  # the place gives nothing away
    for row in verify:
        one, other = map(quality, row["answers"])
        assert row["judge"] == ("A" if one > other else "B")
    again = make(rows, trusted=TrustedJudge(Planned(), CARD))["verify"]
    assert again == verify


def test_a_judge_without_confidences_is_kept_where_both_orders_agree(make: Make) -> None:
    card = {"reliability": None, "threshold": None}
    made = make([answers("unsure", 1, 2), answers("first", 1, 2)],
                trusted=TrustedJudge(Planned(), card))  # fmt: skip
    assert made.built.judged == {"kept": 1, "judge_disagrees": 1}


def test_a_card_that_names_no_confidence_is_refused(make: Make) -> None:
    with pytest.raises(DataError, match="at no confidence"):
        make([answers("fair", 1, 2)], trusted=TrustedJudge(Planned(), CARD | {"threshold": None}))


def test_keeping_the_sure_ones_makes_the_pairs_better(make: Make) -> None:
    """A judge that is right as often as it says: pairs above the threshold are right more often
    than all that are consistent."""
    draw = np.random.default_rng(3)

    said: dict[str, Ruling] = {}

    class Noisy(Planned):
        def _one(self, question: Question) -> Ruling:
            straight = question.item.removesuffix(" swapped")
            if straight not in said:
                one, other = (int(text.split()[1].rstrip(":")) for text in question.answers)
                sure = float(draw.uniform(0.5, 1.0))
                right = draw.random() < sure
                won = float((one > other) == right)
                said[straight] = Ruling((won, 1 - won), sure)
            ruling = said[straight]
            return ruling if question.item == straight else ruling.turned()

    rows = [answers(f"fair {n}", n, 2000 - n) for n in range(900)]

    def right(card: Mapping[str, Any]) -> tuple[float, int]:
        said.clear()
        pairs = make(rows, trusted=TrustedJudge(Noisy(), card))["preferences"]
        good = [quality(row["chosen"]) > quality(row["rejected"]) for row in pairs]
        return float(np.mean(good)), len(good)

    everything, count = right({"reliability": None, "threshold": None})
    sure, fewer = right(CARD)
    assert (count, 300 < fewer < 420) == (900, True)
    assert everything == pytest.approx(0.75, abs=0.05)
    assert sure == pytest.approx(0.9, abs=0.05)


def test_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text(json.dumps(answers("fair", 1, 2)) + "\n")
    judge = tmp_path / "judge.yaml"
    judge.write_text("recorded: said.jsonl\n")
    (tmp_path / "said.jsonl").write_text('{"item": "x", "completion": "Verdict: A"}\n')
    command = ["data", "build", str(tmp_path / "answers.jsonl"), "--output", str(tmp_path / "out"),
               "--judge", str(judge)]  # fmt: skip
    refused = CliRunner().invoke(app, command)
    assert isinstance(refused.exception, RecipeError)
    assert "how far this judge agrees with people" in refused.exception.problem
    judge.write_text("recorded: said.jsonl\nuncalibrated: a trial\n")
    dry = CliRunner().invoke(app, [*command, "--dry-run"])
    assert "pairs for the judge: 1 not_asked" in dry.output
    assert not (tmp_path / "out").exists()
