"""A sampled text becomes a message that says the same, and a broken call says what is broken."""

from __future__ import annotations

from typing import Any

import pytest

from strop.text.malformed import why_no_call
from strop.text.tools import Call, calls_in
from strop.text.turns import SaidTurn, message_of

TOOLS: Any = [
    {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}}},
]  # fmt: skip

ADD = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'


def called(id_: str, a: int = 1, b: int = 2) -> dict[str, Any]:
    return {"id": id_, "type": "function",
            "function": {"name": "add", "arguments": {"a": a, "b": b}}}  # fmt: skip


def test_words_alone() -> None:
    assert message_of("It is 3.", TOOLS) == SaidTurn({"role": "assistant", "content": "It is 3."})


def test_a_thought_words_and_two_calls() -> None:
    text = f"<think>\nTwo sums.\n</think>\n\nI add.\n{ADD}\n{ADD.replace('1', '5')}"
    said = message_of(text, TOOLS, first=7)
    assert said.message == {
        "role": "assistant", "content": "I add.\n", "reasoning_content": "\nTwo sums.\n",
        "tool_calls": [called("call00007"), called("call00008", a=5)],
    }  # fmt: skip
    assert [call.id for call in said.calls] == ["call00007", "call00008"]
    assert said.calls == (Call("add", {"a": 1, "b": 2}), Call("add", {"a": 5, "b": 2}))
    assert said.malformed == ""


def test_a_thought_stays_where_the_template_reads_none() -> None:
    words = "<think>\nTwo sums.\n</think>\n\nI add.\n"
    said = message_of(words + ADD, TOOLS, thoughts=False)
    assert said.message["content"] == words
    assert "reasoning_content" not in said.message
    assert said.message["tool_calls"] == [called("call00000")]


def test_a_call_that_is_only_thought_of_is_none() -> None:
    said = message_of(f"<think>{ADD}</think>3", TOOLS)
    assert said == SaidTurn({"role": "assistant", "content": "3", "reasoning_content": ADD})


def test_a_turn_of_calls_alone_has_no_content() -> None:
    assert message_of(ADD, TOOLS).message["content"] is None


def test_without_tools_nothing_is_a_call() -> None:
    assert message_of(ADD, None) == SaidTurn({"role": "assistant", "content": ADD})


@pytest.mark.parametrize("text", [
    '[TOOL_CALLS]add[CALL_ID]aB3dE6gH9[ARGS]{"a": 1, "b": 2}',
    '[TOOL_CALLS][{"name": "add", "arguments": {"a": 1, "b": 2}, "id": "aB3dE6gH9"}]',
])  # fmt: skip
def test_an_id_that_the_syntax_writes_is_kept(text: str) -> None:
    said = message_of(text, TOOLS, first=3)
    assert said.message["tool_calls"] == [called("aB3dE6gH9")]


@pytest.mark.parametrize(("text", "reason"), [
    ('<tool_call>{"name": "add"', "`<tool_call>` is never closed by `</tool_call>`"),
    ('<tool_call>{"name": "add", "arguments": {"a": 1}</tool_call>', "its JSON is broken: Expect"),
    ('<tool_call>{"name": "add", "name": "sub"}</tool_call>', "a key is given twice"),
    ('<tool_call>{"arguments": {"a": 1}}</tool_call>', 'no "name"'),
    ('<tool_call>{"name": "add", "arguments": [1, 2]}</tool_call>', '"arguments" are no object'),
    ('<tool_call>{"name": "add", "a": 1}</tool_call>', "\"arguments\" it has 'a'"),
    ("<tool_call></tool_call>", "nothing stands where"),
    ("<tool_call>[3]</tool_call>", 'it has to be an object with a "name"'),
    (ADD + '<tool_call>{"name": add}</tool_call>', "broken: Expecting value at `add}`"),
    ("<tool_call><function=add><parameter=a>1</function></tool_call>", "`</function>` closes"),
    ("<tool_call><function=add><parameter=a>1</parameter></tool_call>", "`<function=...>` is"),
    ("<tool_call>add<arg_key>a</arg_key><arg_value>1</tool_call>", "`<arg_value>value</"),
    ('[TOOL_CALLS]add[ARGS]{"a": 1', "its JSON is broken"),
    ("[TOOL_CALLS]add[ARGS][1]", "its arguments are no JSON object"),
    ("[TOOL_CALLS]", "nothing stands where"),
    ("<|python_tag|>add(1, 2)", "every argument with its name"),
    ("<|tool_call_start|>[add(a=1)]", "`<|tool_call_start|>` is never closed"),
    ("[add(1, 2)]", "every argument with its name"),
    ('{"name": "add", "parameters": {"a": 1}', "its JSON is broken"),
    ('```json\n{"name": "add", "parameters": {"a" 1}}\n```', "Expecting ':' delimiter at `1}}"),
    (" to=functions.add<|channel|>commentary json<|message|>{a: 1}<|call|>", "its JSON is broken"),
])  # fmt: skip
def test_a_broken_call_says_what_is_broken(text: str, reason: str) -> None:
    assert calls_in(text, TOOLS) is None
    said = message_of(text, TOOLS)
    assert reason in said.malformed
    assert said.message == {"role": "assistant", "content": text}


@pytest.mark.parametrize("text", [
    "It is 3.", "[1, 2, 3]", '{"sum": 3}', "```python\nprint(3)\n```", "print(3)", "",
    "addition(1)", ADD, '{"name": "add", "parameters": {"a": 1}}',
])  # fmt: skip
def test_other_text_and_valid_calls_are_not_malformed(text: str) -> None:
    assert why_no_call(text, TOOLS) == ""
    assert why_no_call(ADD[:-5], None) == ""
