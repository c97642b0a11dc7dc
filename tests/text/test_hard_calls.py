"""Calls that policies come to write: marks in strings, values that JSON lacks, ids that clash."""

from __future__ import annotations

import json
from typing import Any

import pytest

from strop.text.tools import DEEPEST, Call, calls_in
from strop.text.turns import message_of

TOOLS: Any = [{"type": "function", "function": {
    "name": "python", "description": "Runs a program.", "parameters": {
        "type": "object", "properties": {
            "code": {"type": "string"},
            "tag": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "level": {"enum": ["1", "2"]},
            "fast": {"type": "boolean"},
            "share": {"type": ["number", "null"]},
        }}}}]  # fmt: skip

MARKS = [
    "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>",
    "<|tool_call_start|>", "to=functions.f", "; {", "```python\nx = 1\n```",
]  # fmt: skip


def tagged(arguments: str) -> str:
    return f'<tool_call>{{"name": "python", "arguments": {arguments}}}</tool_call>'


def as_json(code: str) -> str:
    return json.dumps({"name": "python", "arguments": {"code": code}})


@pytest.mark.parametrize("code", MARKS)
@pytest.mark.parametrize("written", [
    lambda one: f"<tool_call>{one}</tool_call>\n<tool_call>{one}</tool_call>",
    lambda one: f"[TOOL_CALLS][{one}, {one}]",
    lambda one: f"<|python_tag|>{one}; {one}",
    lambda one: f"{one};{one}",
    lambda one: f"[{one}, {one}]",
])  # fmt: skip
def test_marks_in_the_strings_of_a_json_call_are_its_strings(code: str, written: Any) -> None:
    text = written(as_json(code))
    assert calls_in(text, TOOLS) == [Call("python", {"code": code})] * 2
    said = message_of(text, TOOLS)
    assert list(said.calls) == [Call("python", {"code": code})] * 2
    assert said.message["content"] is None


@pytest.mark.parametrize("code", MARKS)
def test_marks_in_the_arguments_of_mistrals_calls(code: str) -> None:
    one = f"[TOOL_CALLS]python[ARGS]{json.dumps({'code': code})}"
    assert calls_in(one + one, TOOLS) == [Call("python", {"code": code})] * 2


def test_words_that_begin_like_a_call_stay_before_the_call() -> None:
    said = message_of("[Note] I run it.\n" + tagged('{"code": "1"}'), TOOLS)
    assert said.message["content"] == "[Note] I run it.\n"
    assert said.calls == (Call("python", {"code": "1"}),)


@pytest.mark.parametrize(("arguments", "reason"), [
    ('{"share": NaN}', "NaN is no JSON number"),
    ('{"share": -Infinity}', "-Infinity is no JSON number"),
    ('{"share": 1e999}', "a number that is too large"),
    ('{"code": "\\ud83d"}', "half of a surrogate pair"),
    ('{"\\ud83d": 1}', "half of a surrogate pair"),
    (f'{{"share": {"[" * DEEPEST}{"]" * DEEPEST}}}', f"more than {DEEPEST} deep"),
    (f'{{"share": {"[" * 90_000}{"]" * 90_000}}}', "nested too deeply"),
])  # fmt: skip
def test_a_value_that_json_cannot_express_is_told(arguments: str, reason: str) -> None:
    """Otherwise it would fail in the template, in the checker or on its way to the tool."""
    said = message_of(tagged(arguments), TOOLS)
    assert said.calls == ()
    assert reason in said.malformed


@pytest.mark.parametrize("literal", [
    "0x" + "f" * 4000, "1e999", "-1e999", "'\\ud800'", "{1, 2}", "1j", "b''", "x", "open('f')",
    "[" * 150 + "]" * 150, "-" * 20_000 + "1", "1+" * 20_000 + "1", "'\0'",
])  # fmt: skip
def test_a_literal_that_json_cannot_express_is_no_call(literal: str) -> None:
    said = message_of(f"[python(share={literal})]", TOOLS)
    assert said.calls == ()
    assert said.malformed.startswith("write it as `function(name=value)`")


def test_as_deep_as_may_be() -> None:
    lists = DEEPEST - 2  # inside the arguments, and those beside the name
    assert calls_in(tagged(f'{{"share": {"[" * lists}{"]" * lists}}}')) is not None


@pytest.mark.parametrize(("name", "text", "value"), [
    ("code", "12", "12"),
    ("code", "True", "True"),
    ("tag", "12", "12"),
    ("tag", "[1]", "[1]"),
    ("tag", "null", None),
    ("tag", "None", None),
    ("level", "1", "1"),
    ("fast", "true", True),
    ("fast", "True", True),
    ("fast", "maybe", "maybe"),
    ("share", "1", 1),
    ("share", "0.5", 0.5),
    ("share", "None", None),
    ("share", "NaN", "NaN"),
    ("other", "12", 12),
    ("other", "True", "True"),
])  # fmt: skip
def test_a_value_without_a_type_gets_that_of_its_schema(name: str, text: str, value: Any) -> None:
    (call,) = calls_in(
        "<tool_call>\n<function=python>\n"
        f"<parameter={name}>\n{text}\n</parameter>\n</function>\n</tool_call>",
        TOOLS,
    ) or [None]
    assert call is not None
    assert call.arguments == {name: value}
    assert type(call.arguments[name]) is type(value)


@pytest.mark.parametrize("schema", [{"type": 5}, {"enum": 3}, {"anyOf": {}}, 7, {"type": [None]}])
def test_a_schema_that_is_none_does_not_end_the_reading(schema: Any) -> None:
    tools = [{"type": "function", "function": {
        "name": "f", "parameters": {"properties": {"x": schema}}}}]  # fmt: skip
    text = "<tool_call><function=f><parameter=x>1</parameter></function></tool_call>"
    assert calls_in(text, tools) == [Call("f", {"x": 1})]


def test_only_ids_of_the_right_form_are_kept_and_only_once() -> None:
    ids = ["x", "aB3dE6gH9", "aB3dE6gH9", "aB3dE6gH-"]
    text = "".join(f"[TOOL_CALLS]python[CALL_ID]{one}[ARGS]{{}}" for one in ids)
    said = message_of(text, TOOLS, first=5)
    assert [call.id for call in said.calls] == ["call00005", "aB3dE6gH9", "call00007", "call00008"]
    assert [call["id"] for call in said.message["tool_calls"]] == [c.id for c in said.calls]
