"""Berkeley's function-calling tasks through all the machinery of tools: described, written in every
family's syntax, read back, checked."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from strop.rollout.tools.arguments import Arguments
from strop.text.chat.template import ChatTemplate
from strop.text.tools import Call, calls_in
from strop.text.turns import listed, message_of
from tests.support.calling import FAMILIES
from tests.support.templates import speaking

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("STROP_DATA", ROOT.parent / "shared/data")) / "bfcl"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"no public data at {DATA}")

JSON_TYPES = {"dict": "object", "float": "number", "tuple": "array"}
"""The types of JSON for those that the data set takes from Python."""
OPTIONAL = ""
"""An accepted value that means that the argument may be left out."""

Task = tuple[dict[str, Any], Call]


def rows(name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(DATA / f"simple_python.{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def schema_of(given: Any) -> Any:
    """A schema with JSON's types; `any` is no limit."""
    if isinstance(given, list):
        return [schema_of(one) for one in given]
    if not isinstance(given, dict):
        return given
    made = {key: schema_of(value) for key, value in given.items()}
    if made.get("type") == "any":
        del made["type"]
    elif isinstance(made.get("type"), str):
        made["type"] = JSON_TYPES.get(made["type"], made["type"])
    return made


def accepted(values: dict[str, list[Any]], required: Sequence[str] = ()) -> dict[str, Any]:
    """The first accepted value of each argument, without those that are left out first; within an
    object each value is a list of accepted ones again."""
    return {
        name: plain(next(one for one in given if one != OPTIONAL))
        for name, given in values.items()
        if given[0] != OPTIONAL or name in required
    }


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return accepted(value)
    return [plain(one) for one in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    """The tool and the gold call of each task."""
    found = []
    for task, answer in zip(rows("tasks"), rows("answers"), strict=True):
        assert task["id"] == answer["id"]
        (function,), (gold,) = task["function"], answer["ground_truth"]
        ((name, arguments),) = gold.items()
        schema = schema_of(function["parameters"])
        tool = {"type": "function", "function": {**function, "parameters": schema}}
        found.append((tool, Call(name, accepted(arguments, schema["required"]))))
    assert len(found) == 400
    return found


def test_every_function_is_a_tool_and_every_gold_call_fits_it(tasks: list[Task]) -> None:
    told = {}
    for number, (tool, call) in enumerate(tasks):
        mistake = Arguments([tool], f"task {number}").mistake(call)
        if mistake is not None:
            told[number] = mistake.text
    assert told == {}


def test_a_wrong_call_of_any_function_is_told(tasks: list[Task]) -> None:
    """A required argument left out, one of another name, and a value that no schema of these
    allows."""
    for tool, call in tasks:
        arguments = Arguments([tool])
        for name in tool["function"]["parameters"]["required"]:
            less = {k: v for k, v in call.arguments.items() if k != name}
            mistake = arguments.mistake(Call(call.name, less))
            assert mistake is not None
            assert f'"{name}" is a required property' in mistake.text
        more = arguments.mistake(Call(call.name, {**call.arguments, "no_such": 1}))
        assert more is not None
        assert "there is no argument 'no_such'" in more.text
        other = arguments.mistake(Call(f"{call.name}x", call.arguments))
        assert other is not None
        assert other.error == "unknown"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_gold_call_is_written_and_read_back(
    tokenizer: Any, tasks: list[Task], family: str
) -> None:
    template = ChatTemplate(speaking(tokenizer, FAMILIES[family]))
    asked = {"role": "user", "content": "?"}
    different = {}
    for number, (tool, call) in enumerate(tasks):
        calls = listed([Call(call.name, call.arguments, "call00000")])
        said = {"role": "assistant", "content": None, "tool_calls": calls}
        before = template.write([asked], [tool], generation=True)
        text = template.write([asked, said], [tool])[len(before) :]
        text = text.removesuffix(template.closing)
        found = message_of(text, [tool])
        if found.message.get("tool_calls") != calls or calls_in(text, [tool]) != [call]:
            different[number] = (call, found)
    assert different == {}
