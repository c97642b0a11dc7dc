"""OpenTelemetry GenAI: OTLP JSON, flat spans, evaluations in every place they may stand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from strop.errors import DataError
from tests.support.exports import Make

ASKED = [{"role": "user", "parts": [{"type": "text", "content": "Weather in Paris?"}]}]
TOLD = [{"role": "assistant", "parts": [{"type": "text", "content": "Rainy, 57 F."}],
         "finish_reason": "stop"}]  # fmt: skip
TOOLS = [{"type": "function", "function": {"name": "weather"}}]


def otlp(value: Any) -> dict[str, Any]:
    """OTLP's `AnyValue` of a plain value."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [otlp(one) for one in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": pairs(value)}}
    return {"stringValue": value}


def pairs(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": otlp(value)} for key, value in attributes.items()]


def evaluation(name: str, **said: Any) -> dict[str, Any]:
    named = {"name": name} | {key.replace("_", ".", 1): value for key, value in said.items()}
    return {f"gen_ai.evaluation.{key}": value for key, value in named.items()}


def span(number: int, *, events: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.response.id": f"chatcmpl-{number}",
        "gen_ai.input.messages": json.dumps(ASKED),
        "gen_ai.output.messages": json.dumps(TOLD),
    } | more
    return {
        "traceId": f"trace{number}",
        "spanId": f"span{number}",
        "name": "chat gpt-4o",
        "startTimeUnixNano": str(1767607200000000000 + number),
        "attributes": pairs(attributes),
        "events": events or [],
    }


def spans(*listed: dict[str, Any]) -> dict[str, Any]:
    return {"resourceSpans": [{"resource": {}, "scopeSpans": [{"spans": list(listed)}]}]}


def test_an_evaluation_in_its_span(make: Make) -> None:
    up = {"name": "gen_ai.evaluation.result", "timeUnixNano": "1767607300000000000",
          "attributes": pairs(evaluation("user_feedback", score_value=1.0,
                                         score_label="thumbs_up"))}  # fmt: skip
    made = make([spans(span(1, events=[up]), span(2))])
    assert made.built.recognised[next(iter(made.built.recognised))] == {"otel": 1}
    assert (made.built.interactions, made.built.used, made.built.without_signal) == (2, 1, 1)
    [thumb] = made["feedback"]
    assert thumb["prompt"] == [{"role": "user", "content": "Weather in Paris?"}]
    assert thumb["completion"] == [{"role": "assistant", "content": "Rainy, 57 F."}]
    assert thumb["label"] is True
    assert thumb["meta"] == {"source": "otel", "trace_id": "trace1",
                             "time": "2026-01-05T10:00:00+00:00",
                             "signal": "thumb user_feedback"}  # fmt: skip


@pytest.mark.parametrize("place", ["log record", "flat log", "span with parent", "own span"])
def test_an_evaluation_anywhere_else(make: Make, place: str) -> None:
    """By the response's id alone, by the span, in another file, before the span it is about."""
    said = evaluation("user_feedback", score_label="thumbs_down")
    named = {**said, "gen_ai.response.id": "chatcmpl-1"}
    rows: dict[str, dict[str, Any]] = {
        "log record": {"resourceLogs": [{"scopeLogs": [{"logRecords": [
            {"eventName": "gen_ai.evaluation.result", "attributes": pairs(named)}]}]}]},
        "flat log": {"event_name": "gen_ai.evaluation.result", "attributes": named},
        "span with parent": {"name": "gen_ai.evaluation.result", "span_id": "e", "attributes": said,
                             "trace_id": "trace1", "parent_span_id": "span1"},
        "own span": {"event_name": "gen_ai.evaluation.result", "trace_id": "trace1",
                     "span_id": "span1", "attributes": said},
    }  # fmt: skip
    made = make({"a.jsonl": [rows[place]], "b.jsonl": [spans(span(1), span(2))]})
    assert made.said("feedback", "completion", "label") == [("Rainy, 57 F.", False)]
    assert made["feedback"][0]["meta"]["trace_id"] == "trace1"
    assert made.built.unmatched == 0
    assert made.adds_up()


def test_an_evaluation_of_a_trace_is_of_its_last_answer(make: Make) -> None:
    first = {**span(1), "traceId": "t"}
    last = {**span(2), "traceId": "t", "startTimeUnixNano": "1767607299000000000"}
    other = {"event_name": "gen_ai.evaluation.result", "trace_id": "t", "span_id": "root",
             "attributes": evaluation("user_feedback", score_value=0)}  # fmt: skip
    made = make([other, spans(last, first)])
    assert made.built.signals == {"thumb user_feedback": 1}
    assert [row["meta"]["time"] for row in made["feedback"]] == ["2026-01-05T10:01:39+00:00"]


def test_parts_become_turns(make: Make) -> None:
    """Tool calls, their results and thoughts, in the structured form and as OTLP."""
    asked = [
        {"role": "user", "parts": [{"type": "text", "content": "Weather?"}]},
        {"role": "assistant", "parts": [
            {"type": "reasoning", "content": "I need the tool."},
            {"type": "tool_call", "id": "c1", "name": "weather", "arguments": {"city": "Paris"}}]},
        {"role": "tool", "parts": [
            {"type": "tool_call_response", "id": "c1", "response": {"rain": True}}]},
    ]  # fmt: skip
    flat = {"trace_id": "t", "span_id": "s", "attributes": {
        "gen_ai.input.messages": asked, "gen_ai.output.messages": TOLD,
        "gen_ai.system_instructions": [{"type": "text", "content": "Be brief."}],
        "gen_ai.tool.definitions": TOOLS}}  # fmt: skip
    note = {"event_name": "gen_ai.evaluation.result", "span_id": "s",
            "attributes": evaluation("thumbs", score_value=1)}  # fmt: skip
    [row] = make([flat, note])["feedback"]
    call = {"id": "c1", "type": "function",
            "function": {"name": "weather", "arguments": {"city": "Paris"}}}  # fmt: skip
    assert row["prompt"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "reasoning_content": "I need the tool.",
         "tool_calls": [call]},
        {"role": "tool", "content": '{"rain": true}', "tool_call_id": "c1"},
    ]  # fmt: skip
    assert row["tools"] == TOOLS
    structured = {**spans(span(1)), "x": 1}
    inside = structured["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    inside["attributes"] = pairs({"gen_ai.input.messages": asked, "gen_ai.output.messages": TOLD,
                                  "gen_ai.system_instructions": flat["attributes"][
                                      "gen_ai.system_instructions"]})  # fmt: skip
    again = {**note, "span_id": "span1"}
    assert make([structured, again])["feedback"][0]["prompt"] == row["prompt"]


def test_an_agents_span_gives_way_to_its_calls(make: Make) -> None:
    agent = {**span(1, **{"gen_ai.operation.name": "invoke_agent"}), "traceId": "t"}
    call = {**span(2), "traceId": "t"}
    note = {"event_name": "gen_ai.evaluation.result", "span_id": "span1", "trace_id": "t",
            "attributes": evaluation("user_feedback", score_value=1)}  # fmt: skip
    made = make([spans(agent, call), note])
    assert made.built.left_out == {"whole_trace": 1}
    assert len(made["feedback"]) == made.built.used == 1
    alone = make([spans(agent), note])
    assert alone.built.left_out == {}
    assert len(alone["feedback"]) == 1


def test_faults(make: Make) -> None:
    """Images are counted as left out, a broken list of messages as a bad row with its line."""
    image = [{"role": "user", "parts": [{"type": "blob", "modality": "image", "content": "aGk="}]}]
    rows = [
        spans(span(1)),
        spans(span(2, **{"gen_ai.input.messages": json.dumps(image)})),
        spans(span(3, **{"gen_ai.input.messages": "[{"})),
        {"event_name": "gen_ai.evaluation.result", "trace_id": "t", "attributes": {}},
        {"event_name": "gen_ai.evaluation.result", "trace_id": "elsewhere",
         "attributes": evaluation("user_feedback", score_value=1)},
        {"trace_id": "t", "span_id": "db", "start_time": "2026-01-05T10:00:00Z",
         "attributes": {"db.system": "postgresql"}},
    ]  # fmt: skip
    made = make(rows, max_bad=0.5)
    assert made.built.left_out == {"content_part": 1}
    assert [(bad.kind, bad.origin.line) for bad in made.built.bad] == [
        ("messages", 3), ("unnamed_signal", 4)]  # fmt: skip
    assert (made.built.unmatched, made.built.silent) == (1, 1)
    assert made.built.unknown == {"otel": {"attributes.db.system": 1}}
    assert made.adds_up()
    with pytest.raises(DataError, match=r"2 of 6 rows .* cannot be used"):
        make(rows)
