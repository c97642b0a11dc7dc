"""Calls of tools by hand: every way of writing the right one, and near misses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from strop.rewards.tools import calls_of, tool_call
from strop.text.tools import Call
from strop.types import Text
from tests.support.clocks import at_most

WEATHER = [{"name": "weather", "arguments": {"city": "Bern", "days": 3}}]


TOOL = {
    "name": "weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    },
}


CALL = '{"name": "weather", "arguments": {"city": "Bern", "days": 3}}'


def message(*calls: tuple[str, Any]) -> Text:
    listed = [{"type": "function", "function": {"name": n, "arguments": a}} for n, a in calls]
    return [{"role": "assistant", "content": None, "tool_calls": listed}]


@pytest.mark.parametrize(
    ("said", "score"),
    [
        (CALL, 1.0),
        (f"[{CALL}]", 1.0),
        (f"```json\n{CALL}\n```", 1.0),
        (f"Let me look.\n<tool_call>\n{CALL}\n</tool_call>", 1.0),
        ('weather(city="Bern", days=3)', 1.0),
        ("[weather(days=3, city='bern')]", 1.0),
        ('```python\nweather(city="Bern", days=3)\n```', 1.0),
        ('{"name": "weather", "parameters": {"city": "Bern", "days": 3}}', 1.0),
        (message(("weather", '{"city": "Bern", "days": 3}')), 1.0),
        (message(("weather", {"city": "Bern", "days": 3})), 1.0),
        (f"<think>hm</think><tool_call>{CALL}</tool_call>", 1.0),
        (f"<think><tool_call>{CALL}</tool_call></think>no call", 0.0),
        (f"<tool_call>{CALL}", 0.0),
        (f"<tool_call><tool_call>{CALL}</tool_call></tool_call>", 0.0),
        (f"<tool_call>{CALL}</tool_call>" * 2, 0.0),
        (f"<tool_call>{CALL}</tool_call><tool_call>nonsense</tool_call>", 0.0),
        (f"[{CALL}, {CALL}]", 0.0),
        (message(*[("weather", {"city": "Bern", "days": 3})] * 2), 0.0),
        (message(("weather", '{"city": "Bern", "days": 3')), 0.0),
        (message(("weather", '{"city": "Bern", "days": 4, "days": 3}')), 0.0),
        ([{"role": "tool", "content": CALL}], 0.0),
        (CALL.replace("weather", "Weather"), 0.0),
        (CALL.replace("Bern", "Basel"), 0.0),
        (CALL.replace("3", "4"), 0.0),
        (CALL.replace("3", '"3"'), 0.0),
        (CALL.replace("3", "3.0"), 0.0),
        (CALL.replace("3", "true"), 0.0),
        (CALL.replace("3", "null"), 0.0),
        (CALL.replace("3", "[3]"), 0.0),
        (CALL.replace(', "days": 3', ""), 0.0),
        (CALL.replace("3}", '3, "more": 1}'), 0.0),
        ('weather("Bern", 3)', 0.0),
        ('weather(city="Bern", days=1 + 2)', 0.0),
        ('weather(city="Bern", days=4, days=3)', 0.0),
        ('weather(**{"city": "Bern", "days": 3})', 0.0),
        ('print(weather(city="Bern", days=3))', 0.0),
        ("", 0.0),
        ("weather", 0.0),
        ("[]", 0.0),
        ("\ud800(a=1)", 0.0),
    ],
)
def test_tool_call(said: Text, score: float) -> None:
    assert tool_call(["p"], [said], answer=[WEATHER], tools=[[TOOL]]) == [score]
    openai = [{"type": "function", "function": TOOL}]
    columns: dict[str, Any] = {"answer": [json.dumps(WEATHER)], "tools": [json.dumps(openai)]}
    assert tool_call(["p"], [said], **columns) == [score]


def test_parallel_calls_pair_in_any_order() -> None:
    answer = [{"f": {"a": [1, 2]}}, {"f": {"a": [1]}}, {"g": {}}]

    def score(*calls: tuple[str, Any]) -> float | None:
        return tool_call(["p"], [message(*calls)], answer=[answer])[0]

    assert score(("f", {"a": 1}), ("f", {"a": 2}), ("g", {})) == 1.0
    assert score(("g", {}), ("f", {"a": 2}), ("f", {"a": 1})) == 1.0
    assert score(("g", ""), ("f", {"a": 1}), ("f", {"a": 1})) == 1.0
    assert score(("f", {"a": 2}), ("f", {"a": 2}), ("g", {})) == 0.0
    assert score(("f", {"a": 1}), ("f", {"a": 2})) == 0.0
    assert score(("f", {"a": 1}), ("f", {"a": 2}), ("g", {}), ("g", {})) == 0.0
    many = [{"f": {"a": list(range(12))}}] * 11 + [{"f": {"a": [99]}}]
    said = message(*[("f", {"a": 0})] * 12)
    with at_most(1.0):
        assert tool_call(["p"], [said], answer=[many]) == [0.0]


A_AND_A = [{"name": "f", "arguments": {"q": "a"}}, {"name": "f", "arguments": {"q": "A"}}]


@pytest.mark.parametrize(
    ("said", "answer", "score"),
    [
        (["a", "A"], A_AND_A, 1.0),
        (["A", "a"], A_AND_A, 1.0),
        (["a", "a"], A_AND_A, 0.0),
        (["A", "A"], A_AND_A, 0.0),
        (["a.", "a."], A_AND_A, 0.0),
        (["a", "b"], A_AND_A, 0.0),
        (["a"], A_AND_A, 0.0),
        # punctuation alone tells them apart
        (["x-y", "xy"], [{"f": {"q": ["x-y"]}}, {"f": {"q": ["xy"]}}], 1.0),
        (["xy", "xy"], [{"f": {"q": ["x-y"]}}, {"f": {"q": ["xy"]}}], 0.0),
        # in a list, and in an object
        ([["a"], ["A"]], [{"f": {"q": [["a"]]}}, {"f": {"q": [["A"]]}}], 1.0),
        ([["a"], ["a"]], [{"f": {"q": [["a"]]}}, {"f": {"q": [["A"]]}}], 0.0),
        ([{"r": "a"}, {"r": "a"}], [{"f": {"q": [{"r": [c]}]}} for c in "aA"], 0.0),
        # the same call expected twice may be written in any way
        (["BERN", "bern"], [{"f": {"q": ["Bern"]}}] * 2, 1.0),
        # others that folding does not confuse
        (["BERN", "basel"], [{"f": {"q": ["Bern"]}}, {"f": {"q": ["Basel"]}}], 1.0),
        (["BERN", "bern"], [{"f": {"q": ["Bern"]}}, {"f": {"q": ["Basel"]}}], 0.0),
    ],
)
def test_calls_that_differ_by_case_only(said: list[Any], answer: Any, score: float) -> None:
    calls = message(*[("f", {"q": value}) for value in said])
    assert tool_call(["p"], [calls], answer=[answer]) == [score]


@pytest.mark.parametrize(
    ("said", "answer", "score"),
    [
        # nested objects: exact in one form, with accepted values in the other
        ({"q": {"ids": [1, 2]}}, [{"name": "f", "arguments": {"q": {"ids": [1, 2]}}}], 1.0),
        ({"q": {"ids": 1}}, [{"name": "f", "arguments": {"q": {"ids": [1, 2]}}}], 0.0),
        ({"q": {"ids": [2, 1]}}, [{"name": "f", "arguments": {"q": {"ids": [1, 2]}}}], 0.0),
        ({"q": {}}, [{"name": "f", "arguments": {"q": {"ids": ""}}}], 0.0),
        ({"q": {"ids": 1}}, [{"f": {"q": [{"ids": [1, 2]}]}}], 1.0),
        ({"q": {"ids": 3}}, [{"f": {"q": [{"ids": [1, 2]}]}}], 0.0),
        ({"q": {}}, [{"f": {"q": [{"ids": [1, ""]}]}}], 1.0),
        ({"q": {"ids": 1, "x": 1}}, [{"f": {"q": [{"ids": [1, ""]}]}}], 0.0),
        ({"q": [{"a": 1}]}, [{"f": {"q": [[{"a": [1]}]]}}], 1.0),
        ({"q": [{"a": 2}]}, [{"f": {"q": [[{"a": [1]}]]}}], 0.0),
        # left out
        ({}, [{"name": "f", "arguments": {"q": ""}}], 0.0),
        ({"q": ""}, [{"name": "f", "arguments": {"q": ""}}], 1.0),
        ({}, [{"f": {"q": [5, ""]}}], 1.0),
        ({}, [{"f": {"q": [5]}}], 0.0),
        ({}, [{"name": "f"}], 1.0),
        # values
        ({"q": "New-York, NY."}, [{"f": {"q": ["new york ny"]}}], 1.0),
        ({"q": "15"}, [{"f": {"q": ["1.5"]}}], 0.0),
        ({"q": "."}, [{"f": {"q": [","]}}], 0.0),
        ({"q": 5}, [{"f": {"q": [5.0]}}], 1.0),
        ({"q": 1}, [{"f": {"q": [True]}}], 0.0),
        ({"q": True}, [{"f": {"q": [1]}}], 0.0),
        ({"q": None}, [{"f": {"q": [0]}}], 0.0),
        ({"q": None}, [{"f": {"q": [None]}}], 1.0),
    ],
)
def test_arguments(said: dict[str, Any], answer: Any, score: float) -> None:
    assert tool_call(["p"], [message(("f", said))], answer=[answer]) == [score]


@pytest.mark.parametrize(
    "answer",
    [
        None, "", [], "[", "[5]", [5], 5, [{"f": 5}], [{"f": {"a": 5}}],
        # accepted values that nothing meets
        [{"f": {"a": []}}], [{"f": {"a": [5], "b": []}}], [{"f": {"a": [{"b": []}]}}],
        [{"f": {"a": "5"}}], [{"f": {"a": {"b": [5]}}}],
    ],
)  # fmt: skip
def test_an_answer_that_is_no_call_is_unscored(answer: Any) -> None:
    scores = tool_call(["p"] * 2, ["f(a=5)"] * 2, answer=[answer, [{"f": {"a": [5]}}]])
    assert scores == [None, 1.0]


def test_broken_tools_are_unscored() -> None:
    answer = [{"f": {"a": [5]}}]
    tools: list[Any] = ["{", [{}], [{"name": "f", "parameters": {"properties": {"a": True}}}], None]
    scores = tool_call(["p"] * 4, ["f(a=5)"] * 4, answer=[answer] * 4, tools=tools)
    assert scores == [None, None, 1.0, 1.0]


def test_nothing_of_a_call_is_evaluated() -> None:
    assert calls_of("__import__('os').system(command='false')") is None
    assert calls_of("os.system(command='false')") == [Call("os.system", {"command": "false"})]
    assert calls_of("f(a=__import__('os').getpid())") is None
    assert calls_of("f(a=10**10**10)") is None
