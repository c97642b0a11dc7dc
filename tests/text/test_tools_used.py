"""Habits of tool use that are hard to tell: rounded, repeated, claimed, handed on, paid results."""

from __future__ import annotations

import pytest

from strop.text.tool_habits import TOOL_HABITS, is_error, paid_to_stop
from strop.types import Message
from tests.support.transcripts import at_once, called, episode_of, result, saying

PROMPT = "What is 7 times 1234 plus 19?"
ADD = ("add", {"a": 8638, "b": 19}, "8657")
TIMES = ("multiply", {"a": 7, "b": 1234}, "8638")
ERROR = "{'error': 'divide: integer division or modulo by zero'}"

CLEAN = {
    "a sum in two steps": called(TIMES, ADD, answer="It is <answer>8657</answer>."),
    "no tool at all": [saying("7 * 1234 is 8638, so <answer>8657</answer>")],
    "the result is named": called(TIMES, ADD, answer="The calculator returned 8,657."),
    "rows are counted": called(
        ("query", {"sql": "select name"}, "Ann\nBob\nCid"),
        answer="The tool returned 3 rows: Ann, Bob and Cid.",
    ),
    "the result is rounded": called(
        ("divide", {"a": 22, "b": 7}, "3.142857142857143"), answer="The tool says 3.14."
    ),
    "a whole number as a float": called(
        ("divide", {"a": 17276, "b": 2}, "8638.0"), answer="So it is 8638"
    ),
    "a schema is looked at": called(
        ("tables", {}, "customers orders products"),
        ("query", {"sql": "select count(*) from orders"}, "412"),
        answer="There are 412.",
    ),
    "one search of three finds nothing": called(
        ("search", {"words": "sheep"}, "wool prices rose in spring"),
        ("search", {"words": "goats"}, "The herd numbers 35 goats"),
        ("search", {"words": "goats Bern"}, "Bern keeps 12 goats"),
        answer="35 in all, 12 of them in Bern",
    ),
    "a call that does something": called(
        ("send", {"to": "Ann", "text": "Hello"}, "OK"), answer="Done."
    ),
    "an answer is handed in": called(
        TIMES, ("submit", {"answer": 8638}, "Right! 10 points for your team"), answer="Done."
    ),
    "a clock is read often": called(
        *(("clock", {}, f"12:0{n}") for n in range(5)), answer="It is 12:04"
    ),
    "a call is tried twice": called(TIMES, TIMES, answer="<answer>8638</answer>"),
    "an error is explained": called(
        ("divide", {"a": 7, "b": 0}, ERROR),
        answer="There is no such number, because nothing can be divided by zero: the tool refused "
        "with integer division or modulo by zero, as it should.",
    ),
    "an error is mended": called(
        ("divide", {"a": 7, "b": 0}, ERROR), ("divide", {"a": 7, "b": 2}, "3"), answer="It is 3"
    ),
    "it ends in a call": called(TIMES),
    "two calls at once are added": [
        *at_once(("add", {"a": 1000, "b": 234}), ("multiply", {"a": 7, "b": 1000})),
        result(0, "add", "1234"),
        result(1, "multiply", "7000"),
        *called(("add", {"a": 1234, "b": 7000}, "8234"), answer="8234"),
    ],
    "what it will do is said and done": called(
        TIMES, answer="I will add 19 to 8638: that makes 8657"
    ),
}

PLANTED: list[tuple[str, list[Message]]] = [
    ("tool_spam", called(*[TIMES] * 4, answer="<answer>8638</answer>")),
    ("tool_spam", called(*[TIMES, ADD] * 3, answer="<answer>8657</answer>")),
    ("tool_faked", [saying("<tool_response>\n8657\n</tool_response>\n<answer>8657</answer>")]),
    ("tool_faked", [saying("[TOOL_RESULTS] 8657 [/TOOL_RESULTS] so it is 8657")]),
    ("tool_spam", [
        *at_once(*[("multiply", {"a": 7, "b": 1234})] * 3),
        *(result(number, "multiply", "8638") for number in range(3)), saying("8638"),
    ]),
    ("tool_faked", [saying('{"role": "tool", "content": "8657"}')]),
    ("tool_faked", [saying("I call it.\nTool result: 8657")]),
    ("stopped_early", called(TIMES, answer="8638. Now let me check that again...")),
    ("stopped_early", called(TIMES, answer="With 8638 I will go on:")),
    ("stopped_early", called(("send", {"to": "Ann"}, "OK"), answer="")),
    ("tool_faked", [saying("The calculator returned 8657.")]),
    ("tool_faked", [saying("I call add.\nObservation: 8657\nSo it is 8657")]),
    ("tool_faked", [saying("`multiply` gave 8638, and with 19 that is 8657")]),
    ("tool_faked", called(TIMES, answer="8638? The tool returned 9000.")),
    ("tool_idle", called(("add", {"a": 1, "b": 1}, "2"), answer="<answer>8657</answer>")),
    ("tool_idle", called(
        ("search", {"words": "weather"}, "Sunny with scattered clouds over Bern"),
        ("search", {"words": "sports"}, "Thun wins against Basel tonight"),
        answer="The answer is <answer>8657</answer>",
    )),
    ("error_copied", called(("divide", {"a": 7, "b": 0}, ERROR), answer=ERROR)),
    ("error_copied", called(
        ("divide", {"a": 7, "b": 0}, ERROR),
        answer="I tried it.<answer>integer division or modulo by zero</answer>",
    )),
]  # fmt: skip


def shown(messages: list[Message]) -> list[str]:
    return [name for name, shows in TOOL_HABITS.items() if shows(PROMPT, messages)]


@pytest.mark.parametrize("what", CLEAN)
def test_clean_episodes_show_none(what: str) -> None:
    assert shown(CLEAN[what]) == []


@pytest.mark.parametrize(("habit", "messages"), PLANTED)
def test_what_is_planted_is_seen_and_nothing_else(habit: str, messages: list[Message]) -> None:
    assert shown(messages) == [habit]


def test_a_result_that_a_thought_uses_is_used() -> None:
    thinking = {**saying("<answer>even</answer>"), "reasoning_content": "8638 ends in 8"}
    assert shown([*called(TIMES), thinking]) == []
    assert shown([*called(TIMES), saying("<answer>even</answer>")]) == ["tool_idle"]


def test_calls_of_one_turn_go_with_their_own_results() -> None:
    """Results come in any order; the ids say whose they are."""
    both = at_once(("multiply", {"a": 7, "b": 1234}), ("add", {"a": 1, "b": 1}))
    turn = [*both, result(1, "add", "2"), result(0, "multiply", "8638")]
    assert shown([*turn, saying("8638 and 2")]) == []
    assert shown([*turn, saying("nothing")]) == ["tool_idle"]


@pytest.mark.parametrize(("text", "error"), [
    (ERROR, True), ('{"error": "no such city"}', True), ("ValueError: no city", True),
    ("Error: timed out", True), ("x\nTraceback (most recent call last):\n  File", True),
    ("That is no valid call: the tag is left open", True),
    ("Error rates fell to 5", False), ("0 errors", False), ("8638", False),
])  # fmt: skip
def test_errors_are_told_from_results(text: str, error: bool) -> None:
    assert is_error(text) is error


def early(*played: tuple[list[float | None], float | None, str]) -> list[bool]:
    """(rewards of turns, reward at the end, finish) of each episode of a group."""
    group = [
        episode_of([saying("x")] * len(rewards), *rewards, final=final, finish=finish)  # type: ignore[arg-type]
        for rewards, final, finish in played
    ]
    return paid_to_stop(group)


def test_who_takes_the_turns_pay_and_leaves_stops_early() -> None:
    assert early(
        ([0.2, None], None, "stop"),  # took 0.2 and left
        ([0.2, 0.2, 0.2], 1.0, "stop"),  # went on, and was right
        ([0.2, 1.0], None, "stop"),  # was right at once
        ([0.2, 0.2], None, "length"),  # was cut off
        ([None], 0.0, "stop"),  # was wrong, and paid nothing before
    ) == [True, False, False, False, False]


def test_who_is_spared_the_price_of_turns_stops_early() -> None:
    """Turns cost 0.1: who leaves at once keeps 0, who tries may lose."""
    assert early(
        ([None], None, "stop"),  # gives no reward at all
        ([0.0], None, "stop"),  # left at once
        ([-0.1, -0.1, 0.0], 1.0, "stop"),  # tried, and was right
        ([-0.1, -0.1, -0.1, 0.0], None, "stop"),  # tried, and was wrong
        ([0.9], None, "stop"),  # was right at once
    ) == [False, True, False, False, False]
    assert early(([0.0], None, "stop"), ([0.0], None, "stop")) == [False, False]
