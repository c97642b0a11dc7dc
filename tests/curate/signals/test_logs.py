"""Raw chat logs, batch files, streamed answers, and OpenAI's files for fine-tuning."""

from __future__ import annotations

import json
from typing import Any

import pytest

from strop.curate.signals.sources.chat_log import assembled
from tests.support.exports import Make, user


def completion(*texts: str, **more: Any) -> dict[str, Any]:
    choices = [
        {"index": n, "finish_reason": "stop", "message": {
            "role": "assistant", "content": text, "refusal": None, "annotations": []}}
        for n, text in enumerate(texts)
    ]  # fmt: skip
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1767607200,
            "model": "gpt-4o", "choices": choices, "usage": {"total_tokens": 9}} | more  # fmt: skip


REQUEST = {"model": "gpt-4o", "messages": [user("2x = 6?")], "temperature": 0.2}
CHUNKS = [
    {"id": "chatcmpl-1", "created": 1767607200, "object": "chat.completion.chunk", "choices": [
        {"index": 0, "delta": {"role": "assistant", "content": ""}}]},
    {"choices": [{"index": 0, "delta": {"content": "x "}}]},
    {"choices": [{"index": 0, "delta": {"content": "= 3"}}]},
    {"choices": [], "usage": {"total_tokens": 9}},
]  # fmt: skip
EVENTS = "".join(f"data: {json.dumps(one)}\n\n" for one in CHUNKS) + "data: [DONE]\n\n"


@pytest.mark.parametrize(
    "row",
    [
        {"request": REQUEST, "response": completion("x = 3")},
        {"request": {"body": REQUEST, "url": "/v1"}, "response": {"body": completion("x = 3")}},
        {**REQUEST, **completion("x = 3")},
        {**REQUEST, "response": completion("x = 3")},
        {"request": REQUEST, "response": CHUNKS},
        {"request": REQUEST, "response": EVENTS},
        {"request": REQUEST, "response": {"role": "assistant", "content": "x = 3"}},
        {"request": REQUEST, "response": "x = 3"},
    ],
    ids=["pair", "bodies", "flat", "beside", "chunks", "events", "message", "text"],
)
def test_every_way_to_log_a_call(make: Make, row: dict[str, Any]) -> None:
    made = make([{**row, "feedback": "thumbs_up"}])
    assert made.said("feedback", "prompt", "completion", "label") == [("2x = 6?", "x = 3", True)]
    [recognised] = made.built.recognised.values()
    assert recognised == {"chat_log": 1}
    assert made.built.unknown == {}


def test_a_log_without_signals_is_counted(make: Make) -> None:
    rows = [{"request": REQUEST, "response": completion("x = 3"), "region": "eu"}] * 2
    made = make(rows)
    assert (made.built.without_signal, made.built.used) == (1, 0)
    assert made.built.left_out == {"repeated": 1}
    assert made.built.unknown == {"chat_log": {"region": 2}}
    assert made["tasks"] == []
    made = make(rows, all_prompts=True)
    assert made.said("tasks", "prompt") == [("2x = 6?",)]


def test_a_batch_is_joined_by_its_custom_id(make: Make) -> None:
    asked = [
        {"custom_id": f"q-{n}", "method": "POST", "body": {"messages": [user(f"{n}x = 6?")]}}
        for n in (1, 2, 3)
    ]
    told = [{"id": f"batch_{n}", "custom_id": f"q-{n}", "error": None, "response": {
        "status_code": 200, "request_id": "r", "body": completion(f"x = {6 / n:g}", id=f"c{n}")}}
        for n in (3, 1)]  # fmt: skip
    overloaded = {"status_code": 500, "body": {"error": {"message": "overloaded"}}}
    failed = {"id": "b", "custom_id": "q-2", "error": None, "response": overloaded}
    lone = {"custom_id": "q-9", "response": {"status_code": 200, "body": completion("?", id="c9")}}
    thumbs = [{"id": f"q-{n}", "label": True} for n in (1, 2, 3, 9)]
    made = make({"output.jsonl": [*told, failed, lone], "input.jsonl": asked, "t.jsonl": thumbs})
    assert made.said("feedback", "prompt", "completion") == [
        ("3x = 6?", "x = 2"), ("1x = 6?", "x = 6"),
    ]  # fmt: skip
    assert made.built.left_out == {"no_answer": 1, "no_prompt": 1}
    assert made.adds_up()


def test_streamed_pieces_of_tool_calls() -> None:
    pieces = [
        {"index": 0, "id": "c1", "function": {"name": "weather", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"city": '}},
        {"index": 1, "id": "c2", "function": {"name": "clock", "arguments": "{}"}},
        {"index": 0, "function": {"arguments": '"Paris"}'}},
    ]
    chunks = [{"choices": [{"index": 0, "delta": {"tool_calls": [one]}}]} for one in pieces]
    [choice] = assembled(chunks)["choices"]
    assert choice["message"]["tool_calls"] == [
        {"type": "function", "id": "c1",
         "function": {"name": "weather", "arguments": '{"city": "Paris"}'}},
        {"type": "function", "id": "c2", "function": {"name": "clock", "arguments": "{}"}},
    ]  # fmt: skip


def test_faults_of_a_log(make: Make) -> None:
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
    good = [{"request": {"messages": [user(f"{n}?")]}, "response": completion("x", id=f"c{n}")}
            for n in range(4)]  # fmt: skip
    rows = [
        *good,
        {"request": {"messages": [image]}, "response": completion("x", id="d")},
        {"request": {"messages": "hello"}, "response": completion("x", id="e")},
        {"request": {"messages": []}, "response": completion("x", id="f")},
        "not json",
    ]
    made = make(rows, max_bad=0.5)
    assert made.built.left_out == {"content_part": 1}
    assert [(bad.kind, bad.origin.line) for bad in made.built.bad] == [
        ("empty", 7), ("broken_json", 8)]  # fmt: skip
    assert made.built.without_signal == 5


def test_openai_chat_is_imitated(make: Make) -> None:
    turns = [user("Hi"), {"role": "assistant", "content": "Hello"}]
    made = make([{"messages": turns}, {"messages": [*turns, user("2 + 2?"),
                 {"role": "assistant", "content": "4"}], "split": "a"}])  # fmt: skip
    assert [len(row["prompt"]) for row in made["demonstrations"]] == [1, 1]
    assert [len(row["completion"]) for row in made["demonstrations"]] == [1, 3]
    assert made.built.unknown == {"openai_chat": {"split": 1}}


def test_a_turn_of_weight_zero_is_not_learnt(make: Make) -> None:
    bad = {"role": "assistant", "content": "5", "weight": 0}
    good = {"role": "assistant", "content": "4", "weight": 1}
    rows = [
        {"messages": [user("2 + 2?"), bad, user("Sure?"), good]},
        {"messages": [user("2 + 2?"), bad]},
        {"messages": [good, user("Why?")]},
    ]
    made = make(rows, max_bad=0.5)
    [row] = made["demonstrations"]
    assert [turn["content"] for turn in row["prompt"]] == ["2 + 2?", "5", "Sure?"]
    assert row["completion"] == [{"role": "assistant", "content": "4"}]
    assert made.built.left_out == {"no_answer": 1}
    assert [bad.kind for bad in made.built.bad] == ["no_prompt"]


def test_openai_preferences(make: Make) -> None:
    row = {
        "input": {"messages": [user("2 + 2?")], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [{"role": "assistant", "content": "4"}],
        "non_preferred_output": [{"role": "assistant", "content": "Perhaps 5"}],
    }
    same = {**row, "non_preferred_output": row["preferred_output"]}
    made = make([row, same])
    assert made.said("preferences", "chosen", "rejected") == [("4", "Perhaps 5")]
    assert made["preferences"][0]["meta"]["source"] == "openai_preference"
    assert made.built.left_out == {"same_answer": 1}


def test_a_batch_row_with_an_id_and_a_label_is_a_chat_log(make: Make) -> None:
    """`id` and `label` are also what a feedback of the serving log has."""
    asked = {"custom_id": "q-1", "body": {"messages": [user("2x = 6?")]}}
    told = {"id": "batch_1", "custom_id": "q-1", "label": True,
            "response": {"status_code": 200, "body": completion("x = 3")}}  # fmt: skip
    made = make({"input.jsonl": [asked], "output.jsonl": [told]})
    assert made.said("feedback", "prompt", "completion", "label") == [("2x = 6?", "x = 3", True)]
    assert [dict(one) for one in made.built.recognised.values()] == [{"chat_log": 1}] * 2


def test_a_response_in_plain_text_beside_its_messages(make: Make) -> None:
    made = make([{**REQUEST, "response": "x = 3", "label": False}])
    assert made.said("feedback", "prompt", "completion", "label") == [("2x = 6?", "x = 3", False)]


def test_two_answers_under_one_id_are_said(make: Make) -> None:
    rows = [{"id": "r-1", "messages": [user("2x = 6?")], "answer": text} for text in ("3", "4")]
    made = make([*rows, rows[0], {"id": "r-1", "label": True}])
    assert made.built.shared_ids == 1
    assert made.said("feedback", "completion") == [("3",)]
    assert make([rows[0], {**rows[1], "id": "r-2"}]).built.shared_ids == 0
