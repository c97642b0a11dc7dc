"""Which classes can be environments, and what tools they have."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from strop.errors import WorldError
from strop.recipe.train.environment import OwnEnvironmentRecipe
from strop.rollout.own import server
from strop.rollout.own.describe import described
from strop.rollout.own.toolbox import OwnToolboxes
from strop.text.tools import Call
from strop.types import Origin, Task

FILE = Path(__file__).parent / "worlds.py"


def recipe(name: str) -> OwnEnvironmentRecipe:
    return OwnEnvironmentRecipe.model_validate({"file": str(FILE), "class": name})


def names() -> dict[str, Any]:
    return server.own_names(FILE)


REFUSED = {
    "Calculater": ("the file has no class or function 'Calculater'", "Calculator"),
    "Greedy": ("Greedy needs arguments to be made: size", "without arguments"),
    "Restless": ("Restless has no method `reset`", "def reset"),
    "Constant": ("`get_reward` of Constant cannot be called", "returns the episode's reward"),
    "Yielding": ("step (line", "a method that is no tool begins with `_`"),
    "Dripping": ("`reset` of Dripping yields", "return the text that begins the episode"),
    "Tipping": ("`get_reward` of Tipping yields", "returns the episode's reward"),
    "Unready": ("looking at Unready() raised RuntimeError: not yet", "mend it"),
    "Broken": ("Broken() raised KeyError: 'TOKEN'", "made once before the run"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FILE.parent))
    found = names()
    said = described(found.get(name), name, server._offered(found))
    problem, fix = REFUSED[name]
    assert problem in said.problem
    assert fix in said.fix


def test_a_factory_function_is_as_good_as_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FILE.parent))
    said = described(names()["made"], "made", [])
    assert (said.problem, said.tools, said.rewards) == ("", [], False)


def test_tools_have_the_names_by_which_they_are_called() -> None:
    """No property is run to find them, and of two names of one method none hides the other."""

    async def played() -> list[str]:
        box = boxes.make("0")
        await box.begin(Task("Go.", {}, Origin("tasks.jsonl", 1)))
        texts = [(await box.call(Call(name, {}))).text for name in ("look", "go", "again")]
        await box.close()
        return texts

    boxes = OwnToolboxes(recipe("Shy"))
    try:
        names = [tool["function"]["name"] for tool in boxes.tools or ()]
        assert sorted(names) == ["again", "go", "look"]
        assert asyncio.run(played()) == ["a door", "a wall", "a door"]
    finally:
        asyncio.run(boxes.close())


def test_methods_that_cannot_be_described_are_all_named() -> None:
    with pytest.raises(WorldError) as refused:
        OwnToolboxes(recipe("Undescribed"))
    said = str(refused.value)
    lines = FILE.read_text().splitlines()
    for name, why in {"bare": "no docstring", "unhinted": "missing a type hint",
                      "starred": "any number of arguments"}.items():  # fmt: skip
        line = next(n for n, text in enumerate(lines, 1) if f"def {name}(" in text)
        assert f"{name} (line {line}): " in said
        assert why in said
    assert "give every argument a type hint" in said


def test_where_no_process_can_be_kept_in_hand_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    with pytest.raises(WorldError, match=r"worlds.py: .* needs Linux, and this is Darwin"):
        OwnToolboxes(recipe("Greeted"))
