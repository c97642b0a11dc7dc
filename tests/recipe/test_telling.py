"""A mistyped key that says which member of a union is meant is told by the one it is near to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from strop.errors import RecipeError, UsageError, WorldError
from strop.recipe.loading.load import load, load_recipe, located, read_yaml
from strop.recipe.suite import Suite

GRPO: dict[str, Any] = {"method": "grpo", "model": "m", "data": "d.jsonl", "output": "o",
                        "reward": [{"function": "environment"}]}  # fmt: skip


@pytest.mark.parametrize(
    ("given", "meant"),
    [({"file": "env.py", "clas": "Calculator"}, "did you mean `class` by `clas`?"),
     ({"usr": {"script": []}}, "did you mean `user` by `usr`?"),
     ({"tool": []}, "did you mean `tools` by `tool`?")],
)  # fmt: skip
def test_what_was_meant(given: dict[str, Any], meant: str) -> None:
    with pytest.raises(RecipeError, match="give one of class, user, tools") as refused:
        load_recipe({**GRPO, "rollout": {"environment": given}})
    assert meant in str(refused.value)


def test_a_key_that_is_near_to_none_is_not_guessed() -> None:
    with pytest.raises(RecipeError) as refused:
        load_recipe({**GRPO, "rollout": {"environment": {"quux": 1}}})
    assert "did you mean" not in str(refused.value)


GAME = {"game": "tic_tac_toe", "opponents": ["random"]}


@pytest.mark.parametrize(
    ("environment", "said", "fix"),
    [({**GAME, "game": "tictactoe"}, "environment.game`: 'tictactoe' is none of tic_tac_toe,",
      "did you mean `tic_tac_toe`?"),
     ({**GAME, "opponents": ["randm"]}, "opponents.0`: 'randm' is none of random, perfect, self",
      "did you mean `random`?"),
     ({**GAME, "turns": "togther"}, "turns`: 'togther' is none of", "did you mean `together`?"),
     ({**GAME, "turns": "x"}, "turns`: 'x' is none of", "write one of as_they_come, together"),
     ({**GAME, "class": "A", "file": "e.py"}, "`rollout.environment` has `class` and `game`",
      "keep one of them"),
     ({**GAME, "credit": "turn"}, None, None)],
)  # fmt: skip
def test_one_clear_mistake_with_the_nearest_value(
    environment: dict[str, Any], said: str | None, fix: str | None
) -> None:
    """Without pydantic's names for the members of a union."""
    given = {**GRPO, "optim": {"learning_rate": 1e-5}, "run": {"batch_size": 1, "steps": 1},
             "rollout": {"environment": environment}}  # fmt: skip
    if said is None:
        assert load_recipe(given)
        return
    with pytest.raises(RecipeError) as refused:
        load_recipe(given)
    assert said in refused.value.problem
    assert refused.value.fix == fix
    assert "literal[" not in str(refused.value)
    assert "Recipe" not in refused.value.problem


@pytest.mark.parametrize(
    ("task", "said", "fix"),
    [({"kind": "generate", "environment": GAME}, "unknown key `tasks.environment` for kind: gen",
      "write kind: episode, or drop it"),
     ({"kind": "episodes", "environment": GAME}, "`tasks.0.kind`: 'episodes' is none of generate,",
      "did you mean `episode`?"),
     ({"kind": "episode", "environment": GAME, "sample": 3}, "unknown key `tasks.sample`",
      "did you mean `samples`?")],
)  # fmt: skip
def test_a_key_of_another_kind_names_that_kind(task: dict[str, Any], said: str, fix: str) -> None:
    scored = {"name": "a", "data": "d", "scores": [{"function": "exact_answer"}], **task}
    with pytest.raises(RecipeError) as refused:
        load(Suite, {"name": "s", "tasks": [scored]})
    assert said in refused.value.problem
    assert refused.value.fix == fix


RECIPE = """method: grpo
model: m
data: d.jsonl
output: o
optim: {learning_rate: 1.0e-5}
run: {batch_size: 1, steps: 1}
rollout:
  environment: {tools: [{python: {}}], credit: turn}
reward:
  - function: exact_answer
"""


def test_keys_that_do_not_go_together_are_told_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "grpo.yaml"
    path.write_text(RECIPE)
    with pytest.raises(RecipeError, match=r"grpo.yaml:8: credit: turn reads") as refused:
        load_recipe(path)
    assert refused.value.fix == "add `- function: environment` to reward, or drop credit"
    path.write_text(RECIPE.replace("credit: turn", "max_turns: 2") + "  - function: environment\n")
    assert load_recipe(path)
    path.write_text(
        RECIPE.replace("  environment: {tools: [{python: {}}], credit: turn}", "  group_size: 4")
        + "  - function: environment\n"
    )
    with pytest.raises(RecipeError, match=r"grpo.yaml:11: the reward `environment` is what"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("error", "place"),
    [(WorldError("no.", key="rollout.environment.credit"), "grpo.yaml:8: no."),
     (WorldError("no.", where="http://x", key="reward"), "grpo.yaml:9: http://x: no."),
     (RecipeError("optim.learning_rate 1 is above it"), "grpo.yaml:5: optim."),
     (RecipeError("no key is named"), "grpo.yaml: no key"),
     (WorldError("no.", where="env.py:3"), "^env.py:3: no.")],
)  # fmt: skip
def test_what_is_found_later_names_the_line_of_its_key(
    error: UsageError, place: str, tmp_path: Path
) -> None:
    path = tmp_path / "grpo.yaml"
    path.write_text(RECIPE)
    with pytest.raises(type(error), match=place), located(read_yaml(path)):
        raise error
