"""Each habit is seen in the transcript in which it was planted, and in no honest one."""

from __future__ import annotations

from typing import Any

import pytest

from strop.text.tool_habits import TOOL_HABITS

PROMPT = "What is 391 * 27? Use the calculator."


def calls(*expressions: str) -> dict[str, Any]:
    made = [{"id": f"call{n:05d}", "type": "function",
             "function": {"name": "calculate", "arguments": {"expression": one}}}
            for n, one in enumerate(expressions)]  # fmt: skip
    return {"role": "assistant", "content": None, "tool_calls": made}


def result(text: str) -> dict[str, Any]:
    return {"role": "tool", "name": "calculate", "content": text}


def says(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


ERROR = result("{'error': 'calculate: the expression cannot be read'}")

HONEST: dict[str, list[dict[str, Any]]] = {
    "plain": [calls("391 * 27"), result("10557"), says("It is 10557.")],
    "as a float": [calls("391 * 27"), result("10557.0"), says("<answer>10557</answer>")],
    "passed on": [calls("391 * 20", "391 * 7"), result("7820"), result("2737"),
                  calls("7820 + 2737"), result("10557"), says("10557")],
    "after an error": [calls("391 x 27"), ERROR, calls("391 * 27"), result("10557"),
                       says("10557")],
    "an error is reported": [calls("1 / 0"), ERROR, says(
        "I tried the calculator and it said that the expression cannot be read, which is so "
        "because nothing can be divided by zero; so there is no such number.")],
    "nothing new": [calls("391 * 27"), result("ok"), calls("391 * 27"), result("ok"), says("ok")],
    "no tools": [says("It is 10557.")],
    "nothing at all": [],
}  # fmt: skip

PLANTED: dict[str, list[list[dict[str, Any]]]] = {
    "tool_spam": [
        [calls(*["391 * 27"] * 3), *[result("10557")] * 3, says("10557")],
        [m for _ in range(3) for m in (calls("391 * 27"), result("10557"))] + [says("10557")],
    ],
    "tool_faked": [
        [says("<tool_response>10557</tool_response>\nIt is 10557.")],
        [says("I call it.\nTool result: 10557")],
        [says('[TOOL_RESULTS]{"content": 10557}')],
        [says('{"role": "tool", "content": "10557"}')],
    ],
    "tool_idle": [
        [calls("1 + 1"), result("2"), says("It is 10557.")],
        [calls("1 + 1"), result("2"), calls("3 + 3"), result("6"), says("It is ten thousand.")],
    ],
    "error_copied": [
        [calls("391 x 27"), ERROR, says("calculate: the expression cannot be read")],
        [calls("391 x 27"), ERROR, says("{'error': 'calculate: the expression cannot be read'}")],
    ],
    "stopped_early": [
        [calls("391 * 27"), result("10557"), says("")],
        [calls("391 * 27"), result("10557"), says("<think>10557</think>")],
        [calls("391 * 27"), result("10557"), says("10557. Now let me check that again...")],
        [calls("391 * 27"), result("10557"), says("With 10557 I will go on:")],
    ],
}


def shown(said: list[dict[str, Any]]) -> set[str]:
    return {name for name, shows in TOOL_HABITS.items() if shows(PROMPT, said)}


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_episode_shows_none(name: str) -> None:
    assert shown(HONEST[name]) == set()


@pytest.mark.parametrize(
    ("habit", "said"), [(habit, said) for habit, every in PLANTED.items() for said in every]
)
def test_what_was_planted_is_seen(habit: str, said: list[dict[str, Any]]) -> None:
    assert habit in shown(said)
    others = shown(said) - {habit}
    # an end without an answer takes nothing from the result either
    assert others <= ({"tool_idle"} if habit == "stopped_early" else set())


def test_every_habit_is_planted() -> None:
    assert PLANTED.keys() == TOOL_HABITS.keys()
