"""Langfuse: observations and scores of every data type, joined across files."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.exports import Make, user


def observation(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"obs-{number}",
        "traceId": f"trace-{number}",
        "type": "GENERATION",
        "name": "chat",
        "startTime": f"2026-01-05T10:00:{number:02}.000Z",
        "model": "support-7b",
        "input": [user(f"Question {number}?")],
        "output": {"role": "assistant", "content": f"The answer is {number}."},
        "usage": {"input": 12, "output": 7},
        "level": "DEFAULT",
    } | more


def score(number: int, name: str, kind: str, **more: Any) -> dict[str, Any]:
    return {
        "id": f"score-{number}-{name}",
        "traceId": f"trace-{number}",
        "name": name,
        "dataType": kind,
        "source": "API",
        "timestamp": "2026-01-05T11:00:00Z",
    } | more


def test_every_data_type(make: Make) -> None:
    """A number is a score, a bool and a category a thumb by their names, a correction an edit."""
    scores = [
        score(1, "user-feedback", "NUMERIC", value=1, observationId="obs-1"),
        score(2, "thumbs", "BOOLEAN", value=0, stringValue="False"),
        score(3, "user_feedback", "CATEGORICAL", value=None, stringValue="good"),
        score(4, "output", "CORRECTION", value=0, stringValue="The answer is 44."),
        score(5, "relevance", "NUMERIC", value=0.7),
        score(6, "hallucination", "BOOLEAN", value=1, stringValue="True"),
        score(7, "tone", "CATEGORICAL", stringValue="formal"),
    ]
    made = make({"scores.jsonl": scores, "traces.jsonl": [observation(n) for n in range(1, 9)]})
    assert made.said("feedback", "completion", "label") == [
        ("The answer is 1.", True), ("The answer is 2.", False), ("The answer is 3.", True),
    ]  # fmt: skip
    assert made.said("preferences", "chosen", "rejected") == [
        ("The answer is 44.", "The answer is 4.")
    ]
    assert made.said("demonstrations", "completion") == [("The answer is 44.",)]
    assert made.built.left_out == {"one_answer": 1, "unread_signal": 2}
    assert made.built.unread == {"hallucination": 1, "tone": 1}
    assert made.built.without_signal == 1
    assert made["feedback"][0]["meta"] == {
        "source": "langfuse", "trace_id": "trace-1", "time": "2026-01-05T10:00:01+00:00",
        "signal": "thumb user-feedback",
    }  # fmt: skip
    assert made.adds_up()


def test_a_name_that_a_person_explains(make: Make) -> None:
    rows = [observation(1), score(1, "hallucination", "BOOLEAN", value=1)]
    assert make(rows, thumbs=("hallucination",)).said("feedback", "label") == [(True,)]


def test_a_blob_export(make: Make) -> None:
    """The other spelling, input and output as JSON text, a session."""
    row = {
        "id": "o", "trace_id": "t", "type": "GENERATION", "start_time": "2026-01-05 10:00:00.000",
        "input": json.dumps({"messages": [user("Hi")], "tools": [{"name": "f"}]}),
        "output": json.dumps({"role": "assistant", "content": "Hello"}),
        "environment": "production", "metadata": {"plan": "pro"},
    }  # fmt: skip
    told = {"trace_id": "t", "observation_id": "o", "name": "thumbs", "data_type": "NUMERIC",
            "value": 1.0}  # fmt: skip
    made = make([row, told])
    assert made.said("feedback", "prompt", "completion", "label") == [("Hi", "Hello", True)]
    assert made.built.unknown == {"langfuse": {"metadata.plan": 1}}


def test_a_whole_trace_with_what_belongs_to_it(make: Make) -> None:
    """The model's call stands for the trace; a trace without one stands for itself."""
    nested = {
        "id": "trace-1", "timestamp": "2026-01-05T10:00:00Z", "name": "chat", "sessionId": "s",
        "input": "Question 1?", "output": "said by the app", "observations": [observation(1)],
        "scores": [score(1, "thumbs", "BOOLEAN", value=True)],
    }  # fmt: skip
    made = make([nested])
    assert made.said("feedback", "completion") == [("The answer is 1.",)]
    lone = {**nested, "observations": []}
    assert make([lone]).said("feedback", "prompt", "completion") == [
        ("Question 1?", "said by the app")
    ]
    apart = [{**lone, "scores": []}, observation(1), score(1, "thumbs", "BOOLEAN", value=1)]
    found = make(apart)
    assert found.said("feedback", "completion") == [("The answer is 1.",)]
    assert found.built.left_out == {"whole_trace": 1}


def test_the_answer_of_an_api(make: Make) -> None:
    """Pages of the API: rows under `data`, of a JSON file over several lines, too."""
    page = {"data": [observation(1), observation(2)], "meta": {"page": 1, "totalItems": 2}}
    marks = {"data": [score(1, "thumbs", "BOOLEAN", value=1)], "meta": {"page": 1}}
    made = make({"o.json": [json.dumps(page, indent=1)], "s.json": [json.dumps(marks, indent=1)]})
    assert (made.built.interactions, made.built.used) == (2, 1)


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (score(1, "thumbs", "STARS", value=3), "data_type"),
        (score(1, "thumbs", "BOOLEAN", value=None), "no_value"),
        (observation(1, input=7), "messages"),
        (observation(1, input=[{"content": "no role"}]), "role"),
        ({"id": "x", "name": "nothing that is known"}, "unrecognised"),
        ('{"id": "half a line', "broken_json"),
    ],
)
def test_faults_have_their_line(make: Make, row: Any, kind: str) -> None:
    clean = [observation(n) for n in range(2, 6)]
    made = make([*clean, row], max_bad=0.5)
    assert [(bad.kind, bad.origin.line) for bad in made.built.bad] == [(kind, 5)]
    assert made["dropped"][0]["kind"] == kind
    assert made.built.interactions == 4
