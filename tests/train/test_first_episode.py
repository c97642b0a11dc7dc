"""Before a run one episode is begun: what cannot begin is told, with the place and the fix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from strop.cli.app import app
from strop.engines.local.engine import LocalEngine
from strop.errors import ModelError, RecipeError, StropError, WorldError
from strop.evals.run import check_suite
from strop.recipe.loading.load import load_recipe
from strop.recipe.suite import Suite
from strop.rollout import rehearsal
from strop.train.preflight.prepare import prepare
from strop.train.preflight.prepared import PreparedOnline
from tests.support.runs import WriteRows
from tests.support.templates import TOOLS

WORLD = '''
import time


class World:
    def reset(self, answer):
        if answer == "missing":
            open("/nowhere/rows.csv")
        if answer == "slow":
            time.sleep(1000)
        return f" It is {answer}."

    def add(self, a: int, b: int) -> int:
        """Add two numbers.

        Args:
            a: The first one.
            b: The second one.
        """
        return a + b
'''


@pytest.fixture
def recipe(tmp_path: Path, model_folder: Path, write_rows: WriteRows) -> Any:
    """`recipe({"file": ...}, answer="3")`: the path of a recipe with this environment, whose only
    task has the column `answer`."""
    (tmp_path / "env.py").write_text(WORLD)
    template = TOOLS.replace("{{ t | tojson }}", "{{ t.function.name }}")
    (tmp_path / "tools.jinja").write_text(template)

    def write(environment: dict[str, Any], answer: str = "3", **more: Any) -> Path:
        plain = "game" in environment
        prompt: Any = "Play. " if plain else [{"role": "user", "content": "Solve."}]
        write_rows("tasks.jsonl", [{"prompt": prompt, "answer": answer}])
        reward = "environment" if plain else "exact_answer"
        values = {
            "method": "grpo", "model": str(model_folder), "data": "tasks.jsonl", "output": "out",
            "chat_template": "tools.jinja", "optim": {"learning_rate": 1e-5},
            "run": {"batch_size": 1, "steps": 1}, "reward": [{"function": reward}],
            "rollout": {
                "group_size": 2, "max_tokens": 4, "environment": environment, **more,
            },
        }  # fmt: skip
        (tmp_path / "grpo.yaml").write_text(json.dumps(values, indent=1))
        return tmp_path / "grpo.yaml"

    return write


OWN = {"file": "env.py", "class": "World"}
GAME = {"game": "tic_tac_toe"}


def dry(path: Path) -> PreparedOnline:
    prepared = prepare(load_recipe(path), resume=False, overwrite=False, force=False, dry_run=True)
    assert isinstance(prepared, PreparedOnline)
    return prepared


def test_a_dry_run_shows_the_first_prompt_with_what_reset_said(recipe: Any) -> None:
    said = dry(recipe(OWN)).first_prompt
    assert said is not None
    assert "add" in said
    assert "Solve. It is 3.<|im_end|>" in said, "joined as it is, without a separator"
    shown = CliRunner().invoke(app, ["train", str(recipe(OWN)), "--dry-run"]).output
    assert "tools: add\n" in shown
    assert "Solve. It is 3." in shown
    told = CliRunner().invoke(app, ["train", str(recipe(OWN)), "--dry-run", "--json"]).output
    (tool,) = json.loads(told.splitlines()[-1])["tools"]
    assert tool["function"]["parameters"]["required"] == ["a", "b"]
    played = dry(recipe({**GAME, "opponents": ["self"], "random_opening": 0})).first_prompt
    assert played is not None
    assert played.startswith("Play. ")
    assert played.count("\n") == 3, "the board follows"


def test_a_reset_that_raises_is_refused_with_its_line(recipe: Any, model_folder: Path) -> None:
    said = (
        r"tasks.jsonl:1: no episode of this task can begin: .*env.py:8: reset raised "
        r"FileNotFoundError: .*rows.csv'\n  fix: mend `reset`"
    )
    with pytest.raises(WorldError, match=said):
        dry(recipe(OWN, "missing"))
    folder = recipe(OWN, "missing").parent
    task = {
        "name": "w", "kind": "episode", "data": str(folder / "tasks.jsonl"),
        "environment": {"file": str(folder / "env.py"), "class": "World"},
        "scores": [{"function": "exact_answer"}],
    }  # fmt: skip
    suite = Suite.model_validate({"name": "s", "tasks": [task]})
    with pytest.raises(WorldError, match=said):
        check_suite(suite, LocalEngine(str(model_folder)))


def test_a_reset_that_hangs_does_not_hold_the_run_up(
    recipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "BEGINS_WITHIN", 0.2)
    with pytest.raises(WorldError, match=r"can begin: it took longer than 0.2 s"):
        dry(recipe(OWN, "slow"))


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        ({"opponents": [{"model": "nowhere"}]}, ModelError, "nowhere: no such model folder, and"),
        ({"opponents": [{"file": "gone.py", "class": "X"}]}, WorldError, "no such Python file"),
    ],
)
def test_an_opponent_that_is_not_there_is_refused(
    recipe: Any, more: dict[str, Any], error: type[StropError], said: str
) -> None:
    with pytest.raises(error, match=said):
        dry(recipe({**GAME, **more}))


def test_passes_that_no_answer_can_reach_are_refused(recipe: Any) -> None:
    game = {**GAME, "opponents": ["random"]}
    with pytest.raises(RecipeError, match="no answer passes: rewards in all are from 0 to 1"):
        dry(recipe(game, curriculum={"passes": 100}))
    assert dry(recipe(game, curriculum={"passes": 1})).tasks
