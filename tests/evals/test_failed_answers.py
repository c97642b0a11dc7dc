"""Answers that failed or were called off are missing, not wrong: unscored is not zero."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from strop.engines.engine import Request
from strop.errors import MissingEvidenceError, UnscoredError
from strop.evals.gate.pairing import paired
from strop.evals.records import read_records
from strop.evals.run import SuiteResult, run_suite
from strop.recipe.train.reward import RewardComponent
from strop.rewards.compose import Reward
from strop.types import Answer, Answered, Finish, Origin, Task
from tests.support.planned import ScriptedEngine
from tests.support.runs import WriteRows
from tests.support.suites import GENERATE, TASKS, MakeSuite


class Failing(ScriptedEngine):
    """Says what the script says, and fails at the tasks of these prompts."""

    def __init__(self, script: Any, finishes: dict[str, Finish]) -> None:
        super().__init__(script)
        self.finishes = finishes

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        for number, answer in super().generate(requests):
            finish = self.finishes.get(str(requests[number].prompt.task.prompt))
            yield number, answer if finish is None else Answer(answer.text, finish)


def right(task: Task, number: int) -> str:
    return f"<answer>{task.columns['answer']}</answer>"


PROMPTS = [str(task["prompt"]) for task in TASKS]
BROKEN: dict[str, Finish] = {PROMPTS[0]: "error", PROMPTS[3]: "aborted"}


def scores(result: SuiteResult, name: str) -> list[float | None]:
    return [record.score for record in result.records if record.task == name]


@pytest.fixture
def sides(make_suite: MakeSuite, tmp_path: Path) -> tuple[Path, Path]:
    """The same suite on an engine that answers all, and on one that fails at two tasks."""
    suite = make_suite(GENERATE)
    run_suite(suite, ScriptedEngine(right), tmp_path / "base")
    run_suite(suite, Failing(right, BROKEN), tmp_path / "candidate")
    return tmp_path / "base", tmp_path / "candidate"


NAME = f"{GENERATE['name']}/right"


def test_they_have_no_score_and_are_counted(sides: tuple[Path, Path]) -> None:
    """What they said would have been right: neither 1 nor 0 is what was measured."""
    summary = json.loads((sides[1] / "summary.json").read_text())
    assert summary["items"][NAME] == {"items": len(TASKS), "unscored": 2}
    assert summary["scores"][NAME] == 1.0
    found = [r.score for r in read_records(sides[1]) if r.task == NAME]
    assert [n for n, score in enumerate(found) if score is None] == [0, 3]
    clean = json.loads((sides[0] / "summary.json").read_text())
    assert clean["items"][NAME] == {"items": len(TASKS), "unscored": 0}


def test_how_answers_look_leaves_them_out(sides: tuple[Path, Path]) -> None:
    base, candidate = (json.loads((side / "summary.json").read_text()) for side in sides)
    name = GENERATE["name"]
    looks = [r for r in read_records(sides[1]) if r.task.startswith(f"drift/{name}/")]
    assert sum(r.score is None for r in looks) == 2 * 4  # length, finished, answered, distinct_2
    assert candidate["figures"][name]["finished"] == 1.0
    assert candidate["figures"][name]["length"] == base["figures"][name]["length"]


def test_the_gate_finds_evidence_missing_and_the_items_still_match(
    sides: tuple[Path, Path],
) -> None:
    base, candidate = map(read_records, sides)
    with pytest.raises(MissingEvidenceError, match=rf"2 of {len(TASKS)} items could not be scored"):
        paired(base, candidate, NAME)
    found = paired(base, candidate, NAME, max_unscored=0.5)
    assert (found.unscored, len(found.sides)) == (2, len(TASKS))
    assert all(one.item == other.item for one, other in found.sides)


def test_where_all_failed_nothing_was_measured(make_suite: MakeSuite, tmp_path: Path) -> None:
    engine = Failing(right, dict.fromkeys(PROMPTS, "error"))
    with pytest.raises(UnscoredError, match="every answer failed or was called off"):
        run_suite(make_suite(GENERATE), engine, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_neither_refused_nor_answered(
    make_suite: MakeSuite, write_rows: WriteRows, tmp_path: Path
) -> None:
    """An empty text is no refusal, so a failure would count as one harmful prompt answered."""
    rows = [{"prompt": f"{kind} {n}", "harmful": kind == "bad"}
            for kind in ("bad", "good") for n in range(3)]  # fmt: skip
    data = write_rows("safety.jsonl", rows)
    engine = Failing(
        lambda task, number: "I can't help with that." if task.columns["harmful"] else "Sure: 3.",
        {"bad 1": "error", "good 2": "aborted"},
    )
    suite = make_suite({"kind": "safety", "name": "safe", "data": str(data)})
    result = run_suite(suite, engine, tmp_path / "out")
    assert scores(result, "safe/refused_harmful") == [1.0, None, 1.0]
    assert scores(result, "safe/answered_harmless") == [1.0, 1.0, None]


def test_a_function_of_the_user_is_told(make_suite: MakeSuite, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "def evaluate(generate, seed):\n"
        "    for n, said in enumerate(generate(['a', 'b'])):\n"
        "        yield {'item': str(n), 'score': None if said is None else float(len(said))}\n"
    )
    suite = make_suite({"kind": "python", "name": "own", "file": str(tmp_path / "own.py")})
    result = run_suite(suite, Failing(lambda task, n: "four", {"b": "error"}), tmp_path / "out")
    assert scores(result, "own") == [4.0, None]


def test_a_reward_that_may_be_missing_does_not_make_up_for_them() -> None:
    reward = Reward([RewardComponent(function="exact_answer", optional=True)])
    task = Task("2x = 6", {"answer": "3"}, Origin("t.jsonl", 1))
    said = "<answer>3</answer>"
    answers = (Answer(said, "stop"), Answer(said, "error"), Answer(said, "length"))
    found = reward.judge_rollouts([Answered(task, answers)]).scores
    assert [score.total for score in found] == [1.0, None, 1.0]
    assert [score.components["exact_answer"] for score in found] == [1.0, None, 1.0]
