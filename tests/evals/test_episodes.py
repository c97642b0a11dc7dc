"""Episodes in evals: the same scores and figures as answers have, and whether all of them pass."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from strop.data.sources import data_hash
from strop.engines.local.engine import LocalEngine
from strop.engines.recorded import RecordedEngine
from strop.errors import DataError, RecipeError, UsageError
from strop.evals.jobs import EvalSetup, jobs_of
from strop.evals.overlap import check_overlap
from strop.evals.run import check_suite, run_suite
from strop.evals.tasks.episodes import all_passed, expect_some_pass, told_by
from strop.recipe.loading.load import load
from strop.recipe.suite import EpisodeTask, Suite
from strop.types import Answer, Answered, EvalRecord, Origin, Task
from tests.support import ROOT
from tests.support.runs import WriteRows
from tests.support.templates import TOOLS

SHORT = TOOLS.replace("{{ t | tojson }}", "{{ t.function.name }}")
"""Tells the names of tools alone, for a model of few positions."""
WORLD = '''
class Lucky:
    """Gives a point to who says nothing wrong."""

    def reset(self, **columns):
        self.number = columns["number"]

    def add(self, a: int, b: int) -> int:
        """Add two numbers.

        Args:
            a: The first one.
            b: The second one.
        """
        return a + b

    def get_reward(self):
        return float(self.number % 2)
'''


def recipe(folder: Path, data: Path, **more: Any) -> Suite:
    (folder / "lucky.py").write_text(WORLD)
    (folder / "tools.jinja").write_text(SHORT)
    task = {
        "name": "world", "kind": "episode", "data": [{"path": str(data)}], "samples": 2,
        "environment": {"file": str(folder / "lucky.py"), "class": "Lucky", "max_turns": 2},
        "sampling": {"temperature": 1.0, "max_tokens": 6}, **more,
    }  # fmt: skip
    return Suite.model_validate(
        {"name": "s", "chat_template": str(folder / "tools.jinja"), "tasks": [task]}
    )


MULTIPLY = '''
def multiply(a: int, b: int) -> int:
    """Multiply two numbers.

    Args:
        a: The first one.
        b: The second one.
    """
    return a * b
'''
PAGE = ROOT / "docs/evals.md"
GO = {"role": "user", "content": "Go."}


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {"prompt": [{"role": "user", "content": f"Solve {n}x = 6"}], "number": n}
        for n in range(count)
    ]


def test_a_suite_plays_episodes_and_counts_what_happened(
    tmp_path: Path, model_folder: Path, write_rows: WriteRows
) -> None:
    suite = recipe(tmp_path, write_rows("rows.jsonl", rows(4)))
    result = run_suite(suite, str(model_folder), tmp_path / "out")
    assert result.scores == {"world/environment": 0.5, "world/pass^2": 0.5}
    by_item = {r.item: r.score for r in result.records if r.task == "world/pass^2"}
    assert sorted(by_item.values()) == [0, 0, 1, 1]
    assert result.figures["world"]["turns"] == 1
    assert result.figures["world"]["tool_calls"] == 0
    again = run_suite(suite, str(model_folder), tmp_path / "again")
    assert [r.output for r in again.records] == [r.output for r in result.records]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([1.0, 1.0, 1.0], 1.0),
        ([1.0, 0.9, 1.0], 0.0),
        ([1.0, None, 0.0], 0.0),
        ([1.0, None, 1.0], None),
    ],
)
def test_all_have_to_pass(scores: list[float | None], expected: float | None) -> None:
    task = EpisodeTask.model_validate(
        {"name": "w", "kind": "episode", "data": [{"path": "d"}], "samples": 3,
         "sampling": {"temperature": 1.0}, "environment": {"file": "e.py", "class": "E"}}
    )  # fmt: skip
    rollout: Any = Answered(Task("a", {}, Origin("d", 1)), (Answer("x", "stop"),) * 3)
    scored = [
        EvalRecord("w/environment", "a", score, cluster=None, sample=n)
        for n, score in enumerate(scores)
    ]
    (found,) = all_passed(task, [rollout], scored)
    assert (found.task, found.score) == ("w/pass^3", expected)


@pytest.mark.parametrize(
    ("more", "said"),
    [({"passes": 0}, "with passes 0 every episode passes: .* is from 0 to 1"),
     ({"passes": 2}, "with passes 2 no episode passes: .* is from 0 to 1"),
     ({"passes": 0.5, "samples": 1}, r"for pass\^k over several samples"),
     ({"passes": "twice"}, "valid number"), ({"passes": [1, 1]}, "valid number")],
)  # fmt: skip
def test_passes_has_to_divide_the_scores(
    more: dict[str, Any], said: str, tmp_path: Path, write_rows: WriteRows
) -> None:
    data = write_rows("tasks.jsonl", [{**row, "answer": "2"} for row in rows(2)])

    def looked_at() -> None:
        task = recipe(tmp_path, data, scores=[{"function": "exact_answer"}], **more).tasks[0]
        assert isinstance(task, EpisodeTask)
        expect_some_pass(task, None)

    with pytest.raises((RecipeError, ValueError), match=said):
        looked_at()


def test_a_game_is_measured_with_what_happened_in_it(
    tmp_path: Path, model_folder: Path, write_rows: WriteRows
) -> None:
    """Facts of games have a `/` in their names (whom they met), as figures have before theirs."""
    data = [{"prompt": "Play:", "id": str(n)} for n in range(4)]
    task = {
        "name": "board", "kind": "episode", "data": [{"path": str(write_rows("g.jsonl", data))}],
        "environment": {"game": "tic_tac_toe", "opponents": ["random", "perfect"]},
        "sampling": {"temperature": 0, "max_tokens": 2},
    }  # fmt: skip
    suite = Suite.model_validate({"name": "s", "tasks": [task]})
    result = run_suite(suite, str(model_folder), tmp_path / "out")
    figures = result.figures["board"]
    assert figures["met/random"] + figures["met/perfect"] == 1
    assert result.scores["board/environment"] == 0  # an untaught model names no move
    assert figures["length"] == 2 * figures["turns"], "boards are read, and no part of the answers"
    record = next(r for r in result.records if r.task == "board/environment")
    assert re.fullmatch(r"Play:([1-9XO]{3}\n){3}", record.prompt), (
        "the board that it was asked about"
    )


def test_an_episode_that_cannot_begin_costs_itself_alone(
    tmp_path: Path, model_folder: Path, write_rows: WriteRows
) -> None:
    suite = recipe(tmp_path, write_rows("rows.jsonl", rows(4)))
    world = WORLD.replace(
        "self.number =", "if columns['number'] == 2: raise OSError('away')\n        self.number ="
    )
    (tmp_path / "lucky.py").write_text(world)
    with pytest.warns(UserWarning, match="away"):
        result = run_suite(suite, str(model_folder), tmp_path / "out")
    assert result.scores["world/environment"] == pytest.approx(2 / 3)  # of the tasks 0, 1, 3
    lost = [r for r in result.records if r.score is None and r.task == "world/environment"]
    assert {record.item for record in lost} == {
        r.item for r in result.records if "Solve 2x" in r.prompt
    }


def test_recorded_answers_are_no_episodes(
    tmp_path: Path, model_folder: Path, write_rows: WriteRows
) -> None:
    outputs = write_rows("out.jsonl", [{"prompt": "Solve 0x = 6", "completion": "x"}])
    suite = recipe(tmp_path, write_rows("rows.jsonl", rows(1)))
    with pytest.raises(UsageError, match="no tokens of its answers, which world needs"):
        run_suite(suite, RecordedEngine(str(outputs)), tmp_path / "out")


def test_rows_that_are_one_item_are_told_before_anything_is_played(
    tmp_path: Path, model_folder: Path, write_rows: WriteRows
) -> None:
    """Rows of a game are often alike; at the gate their scores could not be told apart."""
    game = {"environment": {"game": "tic_tac_toe", "opponents": ["random"]}}
    alike = write_rows("alike.jsonl", [{"prompt": "Play."}] * 3)
    suite, engine = recipe(tmp_path, alike, **game), LocalEngine(str(model_folder))
    said = r"alike.jsonl:2: this row is, column for column, the row of .*alike.jsonl:1, so"
    with pytest.raises(DataError, match=said):
        check_suite(suite, engine)
    with pytest.raises(DataError, match=said):
        run_suite(suite, str(model_folder), tmp_path / "out")
    named = write_rows("named.jsonl", [{"prompt": "Play.", "id": f"game-{n}"} for n in range(3)])
    assert check_suite(recipe(tmp_path, named, **game), engine) == {"world": 3}


def test_what_an_environment_is_given_tells_tasks_apart() -> None:
    rows = [
        Task("Go.", {"id": n, "split": "test", "secret": n, "tools": []}, Origin("t", n))
        for n in range(3)
    ]
    assert told_by(None, rows) == ["secret"], "a split is no part of a task, nor is an id"
    assert told_by(("persona",), rows) == ["persona"]
    assert told_by((), rows) == []


def test_the_overlap_of_episodes_reads_what_their_environments_read(
    tmp_path: Path, model_folder: Path, write_rows: WriteRows
) -> None:
    """A held-out task with the prompt of a training task, and another hidden number, is its own."""
    held_out = write_rows("rows.jsonl", [{"prompt": [GO], "number": n} for n in (1, 2)])
    trained = write_rows("trained.jsonl", [{"prompt": [GO], "number": n} for n in (2, 3)])
    suite = recipe(tmp_path, held_out)
    (job,) = jobs_of(suite, EvalSetup(LocalEngine(str(model_folder)), None, 0))
    assert job.told_by == ["number"]
    data = {"path": str(trained), "sha256": data_hash([trained])}
    lineage = {"model": "m", "data": [data], "parent": {"model": "base"}}
    (found,) = check_overlap(job.items, lineage, job.told_by).found
    assert (found.where, found.training) == (f"{held_out}:2", (f"{trained}:1",))


def test_the_suite_of_the_docs_runs(
    tmp_path: Path, model_folder: Path, write_rows: WriteRows
) -> None:
    """docs/evals.md: a task with tools and a game, with rows as its comments have them."""
    (block,) = re.findall(r"## Episodes.*?```yaml\n(.*?)```", PAGE.read_text(), flags=re.S)
    ask = [{"role": "user", "content": "2 x 3?"}]
    write_rows("held-out.jsonl", [{"prompt": ask, "answer": "6"}])
    write_rows("games.jsonl", [{"prompt": "Play. ", "id": f"game-{n}"} for n in (1, 2)])
    (tmp_path / "tools.py").write_text(MULTIPLY)
    (tmp_path / "tools.jinja").write_text(SHORT)
    (tmp_path / "suite.yaml").write_text(f"chat_template: tools.jinja\n{block}")
    suite = load(Suite, tmp_path / "suite.yaml")
    engine = LocalEngine(str(model_folder))
    assert check_suite(suite, engine) == {"calculator": 1, "against_random": 2}
    _, games = jobs_of(suite, EvalSetup(engine, None, 0))
    played = [one for one in games.judge(games.rows) if one.task == "against_random/environment"]
    assert [one.item for one in played] == ["game-1", "game-2"]
    assert all(one.score in (0, 0.5, 1) for one in played)


def test_the_score_of_an_environment_needs_episodes() -> None:
    task = {"name": "w", "kind": "generate", "data": [{"path": "d"}],
            "scores": [{"function": "environment"}]}  # fmt: skip
    with pytest.raises(ValueError, match="write kind: episode"):
        Suite.model_validate({"name": "s", "tasks": [task]})
