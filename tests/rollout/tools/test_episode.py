"""Tools of a recipe in whole episodes: what is called, answered and counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from strop.recipe.train.environment import ToolsEnvironmentRecipe
from strop.rollout.environments import way_of
from strop.rollout.play import Player
from tests.support.episodes import ScriptedEngine, asked
from tests.support.templates import TOOLS, speaking

FILE = str(Path(__file__).parent / "functions_of_tests.py")
USER = [{"role": "user", "content": "How large is it?"}]


def call(name: str, arguments: str) -> str:
    return f'<tool_call>{{"name": "{name}", "arguments": {arguments}}}</tool_call>'


def test_calls_are_answered_and_counted(tokenizer: Any) -> None:
    told = speaking(tokenizer, TOOLS)
    told.init_kwargs["end_of_turn"] = ["<|im_end|>"]
    turns = iter([
        call("area", '{"width": 2}') + call("area", '{"width": "x"}') + call("size", "{}"),
        '<tool_call>{"name": "area"',
        call("shout", '{"word": "luck"}'),
        "It is 2.0.",
    ])  # fmt: skip
    recipe = ToolsEnvironmentRecipe.model_validate({
        "tools": [{"file": FILE, "functions": ["area", "shout"], "workers": 1}],
    })  # fmt: skip
    way = way_of(recipe)
    play = way.play(told, 4096)
    player = Player(ScriptedEngine(told, lambda prompt, request: next(turns)), play, recipe)
    try:
        ((_, episode),) = player.generate(asked(told, [USER], max_tokens=400))
    finally:
        player.close()
    assert episode.finish == "stop"
    assert episode.text == "It is 2.0."
    heard = [m["content"] for m in episode.messages if m["role"] != "assistant"]
    assert heard[:3] == [
        "2.0",
        str({"error": 'area: width: "x" is not of type "number"'}),
        str({"error": "there is no tool 'size'; there are: area, shout"}),
    ]
    assert heard[3].endswith("`<tool_call>` is never closed by `</tool_call>`")
    assert heard[4] == str({"error": "LookupError: no luck"})
    answered = [m["tool_call_id"] for m in episode.messages if m["role"] == "tool"]
    assert answered == [f"call{n:05d}" for n in range(4)]
    counted = {k: v for k, v in episode.facts.items() if k.startswith("tool_")}
    assert counted == {
        "tool_calls": 4, "tool_errors": 3, "tool_arguments": 1, "tool_unknown": 1,
        "tool_raised": 1, "tool_malformed": 1,
    }  # fmt: skip
    assert episode.reward is None
