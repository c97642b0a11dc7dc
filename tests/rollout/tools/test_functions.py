"""A user's functions as tools: described, checked, called in a process of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from strop.errors import WorldError
from strop.recipe.train.environment import ToolsEnvironmentRecipe
from strop.rollout.tools.arguments import Arguments
from strop.rollout.tools.combined import CombinedToolboxes
from strop.rollout.tools.toolbox import ToolResult, told
from strop.text.tools import Call

FILE = str(Path(__file__).parent / "functions_of_tests.py")


def functions(*names: str, **settings: Any) -> dict[str, Any]:
    return {"file": FILE, "functions": list(names), "workers": 2, **settings}


def test_a_function_is_described_and_called(made: Any) -> None:
    tools = made(functions("area", "later", "shout"))
    assert tools.boxes.tools[0] == {"type": "function", "function": {
        "name": "area", "description": "The area of a rectangle.", "return": {"type": "number"},
        "parameters": {
            "type": "object", "required": ["width"],
            "properties": {
                "width": {"type": "number", "description": "Its width."},
                "height": {"type": "number", "description": "Its height."}}}}}  # fmt: skip
    results = tools.ask(
        Call("area", {"width": 2, "height": 2.5}),
        Call("later", {"word": "so"}),
        Call("shout", {"word": "luck"}),
    )
    assert results == [
        ToolResult("5.0"), ToolResult("so"), told("raised", "LookupError: no luck"),
    ]  # fmt: skip


def test_what_does_not_fit_is_told_before_anything_runs(made: Any) -> None:
    tools = made(functions("area"))
    assert tools.one("volume", width=1) == told(
        "unknown", "there is no tool 'volume'; there are: area"
    )
    assert tools.one("area", width="wide") == told(
        "arguments", 'area: width: "wide" is not of type "number"'
    )
    assert tools.one("area", width=1, depth=2) == told(
        "arguments", "area: there is no argument 'depth'; it has width, height"
    )
    assert tools.one("area") == told("arguments", 'area: "width" is a required property')


@pytest.mark.parametrize(("name", "said"), [
    ("unhinted", r"unhinted \(line 67\)"),
    ("undescribed", r"undescribed \(line 77\).*word"),
    ("any_number", r"any_number \(line 82\): the argument words stands for any number"),
    ("unnamed", r"unnamed \(line 92\): the argument word \(before `/`\) cannot be given by its"),
    ("gone", "the file has no function 'gone'\n  fix: it has area, later"),
])  # fmt: skip
def test_what_cannot_be_described_is_refused(name: str, said: str) -> None:
    recipe = ToolsEnvironmentRecipe.model_validate({"tools": [functions("area", name)]})
    with pytest.raises(WorldError, match=f"(?s)functions_of_tests.py: .*{said}"):
        CombinedToolboxes(recipe)


def test_a_function_that_reads_standard_input_reads_no_orders(made: Any) -> None:
    tools = made(functions("reads", "later", workers=1, call_seconds=5.0))
    assert tools.one("reads") == told("raised", "EOFError: EOF when reading a line")
    assert tools.one("later", word="so") == ToolResult("so")


def test_none_fits_where_a_function_takes_it(made: Any) -> None:
    tools = made(functions("may_be_none"))
    assert tools.one("may_be_none", word=None, count=None) == ToolResult("None None")
    assert tools.one("may_be_none", word="a", count=2) == ToolResult("a 2")
    wrong = tools.one("may_be_none", word=1, count=None)
    assert wrong.error == "arguments"
    assert "1 is not valid under any" in wrong.text or "not of type" in wrong.text


def test_two_tools_with_one_name_are_refused() -> None:
    recipe = ToolsEnvironmentRecipe.model_validate(
        {"tools": [functions("area"), functions("later", "area")]}
    )
    with pytest.raises(WorldError, match="two tools are called 'area'"):
        CombinedToolboxes(recipe)


def test_a_hang_of_each_try_is_the_callers(made: Any) -> None:
    tools = made(functions("hang", call_seconds=0.2, retries=1))
    assert tools.one("hang", seconds=30.0) == told("hung", "hang: no answer within 0.2 s")
    assert tools.one("hang", seconds=0.0) == ToolResult("awake")


def test_a_process_that_ends_is_tried_again(made: Any, tmp_path: Path) -> None:
    """A try is two processes: the second is given the same call."""
    marker = tmp_path / "left"
    tools = made(functions("end", retries=1))
    marker.write_text("3")
    assert tools.one("end", marker=str(marker)) == ToolResult("alive")
    marker.write_text("100")
    assert tools.one("end", marker=str(marker)) == told(
        "crashed", "end: the process that runs it ended"
    )
    assert marker.read_text() == "96"


def test_a_long_result_is_cut(made: Any) -> None:
    tools = made(functions("later", longest=4))
    assert tools.one("later", word="abcdefg").text == "abcd\n[3 characters more are left out]"


@pytest.mark.parametrize(("parameters", "said"), [
    ({"type": "objekt"}, "its type is 'objekt'"),
    ({"properties": {"a": {"type": "wide"}}}, "no JSON schema"),
    ({"$ref": "https://example.org/s.json"}, "no JSON schema"),
])  # fmt: skip
def test_a_schema_that_is_none_is_refused(parameters: dict[str, Any], said: str) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    with pytest.raises(WorldError, match=said):
        Arguments([tool])


def test_only_three_mistakes_are_told_at_a_time() -> None:
    names = ["a", "b", "c", "d", "e"]
    schema = {"type": "object", "properties": {n: {"type": "string"} for n in names}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    mistake = Arguments([tool]).mistake(Call("f", dict.fromkeys(names, 1)))
    assert mistake is not None
    assert mistake.text.count("is not of type") == 3
    assert "and 2 more" in mistake.text
