"""LangSmith runs with feedback, and MLflow traces with assessments."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.exports import Make, user


def run(number: int, **more: Any) -> dict[str, Any]:
    message = {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "HumanMessage"],
               "kwargs": {"content": f"Question {number}?", "type": "human"}}  # fmt: skip
    told = {"text": f"Answer {number}.", "message": {
        "lc": 1, "type": "constructor", "id": ["langchain", "schema", "AIMessage"],
        "kwargs": {"content": f"Answer {number}.", "tool_calls": []}}}  # fmt: skip
    return {
        "id": f"run-{number}",
        "trace_id": f"root-{number}",
        "run_type": "llm",
        "name": "ChatOpenAI",
        "start_time": "2026-01-05T10:00:00.000000",
        "parent_run_id": f"root-{number}",
        "inputs": {"messages": [[message]]},
        "outputs": {"generations": [[told]], "llm_output": None, "confidence": 0.9},
        "extra": {"metadata": {"ls_provider": "openai", "customer": "acme"}},
    } | more


def feedback(number: int, key: str, **more: Any) -> dict[str, Any]:
    return {
        "id": f"f-{number}-{key}",
        "run_id": f"run-{number}",
        "trace_id": f"root-{number}",
        "key": key,
        "score": None,
        "value": None,
        "correction": None,
        "created_at": "2026-01-05T11:00:00Z",
        "feedback_source": {"type": "app"},
    } | more


def test_scores_values_and_corrections(make: Make) -> None:
    """A correction that is an answer is an edit; one of a score corrects the score."""
    notes = [
        feedback(1, "user_score", score=1),
        feedback(2, "user_score", value="thumbs_down"),
        feedback(3, "note", correction="Answer three, in words."),
        feedback(4, "note", correction={"output": "Answer 4, rounded."}),
        feedback(5, "user_score", score=0, correction={"score": 1}),
        feedback(6, "note", correction={"category": "other"}),
    ]
    made = make({"runs.jsonl": [run(n) for n in range(1, 7)], "feedback.jsonl": notes})
    assert made.said("feedback", "prompt", "label") == [
        ("Question 1?", True), ("Question 2?", False), ("Question 5?", True),
    ]  # fmt: skip
    assert made.said("preferences", "chosen", "rejected") == [
        ("Answer three, in words.", "Answer 3."), ("Answer 4, rounded.", "Answer 4."),
    ]  # fmt: skip
    assert made.built.unread == {"note.correction": 1}
    assert made.built.unknown == {
        "langsmith": {"extra.metadata.customer": 6, "outputs.confidence": 6}
    }
    assert made.adds_up()


def test_feedback_of_the_root_is_of_the_models_answer(make: Make) -> None:
    root = {"id": "root-1", "trace_id": "root-1", "run_type": "chain", "parent_run_id": None,
            "inputs": {"question": "Question 1?"}, "outputs": {"answer": "Answer 1."}}  # fmt: skip
    made = make([root, run(1), feedback(1, "thumbs", score=1, run_id="root-1")])
    assert made.said("feedback", "completion") == [("Answer 1.",)]
    assert made["feedback"][0]["prompt"] == [user("Question 1?")]
    assert made.built.left_out == {"whole_trace": 1}
    alone = make([root, feedback(1, "thumbs", score=1, run_id="root-1")])
    assert alone.said("feedback", "prompt", "completion") == [("Question 1?", "Answer 1.")]


def test_a_run_that_failed_has_no_answer(make: Make) -> None:
    failed = run(1, outputs=None, error="RateLimitError")
    made = make([failed, feedback(1, "thumbs", score=0), run(2)])
    assert made.built.left_out == {"no_answer": 1}
    assert made.built.without_signal == 1


def trace(number: int, assessments: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """As MLflow 3 writes a trace as JSON."""
    root = {
        "trace_id": f"tr-{number}", "span_id": f"sp-{number}", "parent_span_id": None,
        "name": "predict",
        "attributes": {
            "mlflow.spanInputs": json.dumps({"messages": [user(f"Question {number}?")]}),
            "mlflow.spanOutputs": json.dumps(
                {"choices": [{"message": {"role": "assistant", "content": f"Answer {number}."}}]}),
        },
    }  # fmt: skip
    info = {"trace_id": f"tr-{number}", "request_time": "2026-01-05T10:00:00Z", "state": "OK",
            "trace_metadata": {"mlflow.user": "x"}, "tags": {"team": "a"},
            "assessments": assessments}  # fmt: skip
    return {"info": info, "data": {"spans": [root]}} | more


def assessment(name: str, **more: Any) -> dict[str, Any]:
    return {
        "assessment_id": f"a-{name}",
        "assessment_name": name,
        "source": {"source_type": "HUMAN", "source_id": "someone"},
        "create_time": "2026-01-05T11:00:00Z",
    } | more


def test_mlflow_feedback_and_expectations(make: Make) -> None:
    written = {"serialization_format": "JSON", "value": json.dumps(["a", "b"])}
    made = make([
        trace(1, [assessment("user_feedback", feedback={"value": True})]),
        trace(2, [assessment("correctness", feedback={"value": "no"})]),
        trace(3, [assessment("expected_response", expectation={"value": "Three."})]),
        trace(4, [assessment("expected_facts", expectation={"serialized_value": written})]),
        trace(5, [assessment("guidelines", expectation={"value": "be kind"})]),
        trace(6, [assessment("user_feedback", feedback={"value": True}, valid=False)]),
        trace(7, []),
    ])  # fmt: skip
    assert made.said("feedback", "prompt", "label") == [("Question 1?", True)]
    answers = {row["prompt"][0]["content"]: row.get("answer") for row in made["tasks"]}
    assert answers == {"Question 1?": None, "Question 2?": None, "Question 3?": "Three.",
                       "Question 4?": ["a", "b"], "Question 5?": None}  # fmt: skip
    assert made.built.signals["verdict correctness"] == 1
    assert made.built.left_out == {"no_counterpart": 1, "unread_signal": 1}
    assert made.built.without_signal == 2
    assert made.built.unknown == {"mlflow": {"info.tags.team": 7}}
    assert made.adds_up()


def test_mlflow_rows_of_a_table_and_assessments_apart(make: Make) -> None:
    row = {"trace_id": "tr-9", "request": json.dumps({"question": "What is 3 x 3?"}),
           "response": json.dumps("Nine."), "state": "OK", "trace_metadata": {},
           "request_time": 1767607200000, "spans": [], "assessments": []}  # fmt: skip
    apart = assessment("thumbs_up", feedback={"value": True}, trace_id="tr-9")
    made = make([apart, row])
    assert made.said("feedback", "prompt", "completion", "label") == [
        ("What is 3 x 3?", "Nine.", True)
    ]
    assert made["feedback"][0]["meta"]["time"] == "2026-01-05T10:00:00+00:00"


@pytest.mark.parametrize("old", [True, False])
def test_mlflow_two_wrote_the_request_beside_the_spans(make: Make, old: bool) -> None:
    info = {"request_id": "tr-1", "timestamp_ms": 1767607200000, "status": "OK",
            "assessments": [{"name": "thumbs", "feedback": {"value": 1},
                             "source": {"source_type": "HUMAN"}}]}  # fmt: skip
    data = {"spans": [], "request": json.dumps({"input": "Hi"}), "response": json.dumps("Hello")}
    rows = [{"info": info, "data": data}] if old else [trace(1, info["assessments"])]  # type: ignore[arg-type]
    assert make(rows).said("feedback", "label") == [(True,)]


def test_an_assessment_without_a_name_has_its_line(make: Make) -> None:
    nameless = {"feedback": {"value": True}, "source": {"source_type": "HUMAN"}}
    made = make([trace(1, []), trace(2, [nameless])], max_bad=0.5)
    assert [(bad.kind, bad.origin.line) for bad in made.built.bad] == [("unnamed_signal", 2)]
