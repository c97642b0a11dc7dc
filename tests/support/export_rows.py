"""One clean row of every source, with as much of its form as a row can show."""

from __future__ import annotations

import json
from typing import Any

ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2x = 6?"}]
TOLD = {"role": "assistant", "content": "x = 3", "tool_calls": None}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TEXT = {"type": "text", "content": "2x = 6?"}
TIME = "2026-01-05T10:00:00Z"

ROWS: dict[str, list[dict[str, Any]]] = {
    "openai_preference": [
        {"input": {"messages": ASKED, "tools": [{"type": "function", "function": {"name": "f"}}]},
         "preferred_output": [TOLD], "non_preferred_output": [{**TOLD, "content": "x = 4"}]},
    ],
    "otel": [
        {"resourceSpans": [{"scopeSpans": [{"spans": [{
            "traceId": "t", "spanId": "s", "startTimeUnixNano": "1767607200000000000",
            "attributes": [
                {"key": "gen_ai.response.id", "value": {"stringValue": "r"}},
                {"key": "gen_ai.input.messages", "value": {"arrayValue": {"values": [
                    {"kvlistValue": {"values": [
                        {"key": "role", "value": {"stringValue": "user"}},
                        {"key": "parts", "value": {"arrayValue": {"values": [
                            {"kvlistValue": {"values": [
                                {"key": "type", "value": {"stringValue": "text"}},
                                {"key": "content", "value": {"stringValue": "Hi"}}]}}]}}}]}}]}}},
                {"key": "gen_ai.output.messages", "value": {"stringValue": json.dumps(
                    [{"role": "assistant", "parts": [TEXT]}])}}],
            "events": [{"name": "gen_ai.evaluation.result", "timeUnixNano": "1767607300000000000",
                        "attributes": [
                            {"key": "gen_ai.evaluation.name", "value": {"stringValue": "thumbs"}},
                            {"key": "gen_ai.evaluation.score.value",
                             "value": {"doubleValue": 1.0}}]}]}]}]}]},
        {"trace_id": "t", "span_id": "u", "start_time": TIME, "attributes": {
            "gen_ai.input.messages": [{"role": "user", "parts": [TEXT]}, {
                "role": "assistant", "parts": [{"type": "tool_call", "id": "c", "name": "f",
                                                "arguments": {"a": 1}}]}, {
                "role": "tool", "parts": [{"type": "tool_call_response", "id": "c",
                                           "response": {"b": 2}}]}],
            "gen_ai.output.messages": [{"role": "assistant", "parts": [TEXT]}],
            "gen_ai.system_instructions": [TEXT]}},
    ],
    "mlflow": [
        {"info": {"trace_id": "m", "request_time": TIME, "trace_metadata": {"a": "b"},
                  "assessments": [
                      {"assessment_name": "thumbs", "feedback": {"value": True},
                       "source": {"source_type": "HUMAN"}, "create_time": TIME},
                      {"assessment_name": "answer", "expectation": {"serialized_value": {
                          "value": "[1]"}}, "source": {"source_type": "HUMAN"}}]},
         "data": {"spans": [{"span_id": "s", "parent_span_id": None, "attributes": {
             "mlflow.spanInputs": json.dumps({"messages": ASKED}),
             "mlflow.spanOutputs": json.dumps({"choices": [{"message": TOLD}]})}}]}},
    ],
    "langsmith": [
        {"id": "l", "trace_id": "l", "run_type": "llm", "start_time": TIME,
         "inputs": {"messages": [[{"id": ["langchain", "HumanMessage"],
                                   "kwargs": {"content": "Hi"}}]]},
         "outputs": {"generations": [[{"text": "Hello", "message": {
             "kwargs": {"content": "Hello", "tool_calls": [{"name": "f", "args": {}, "id": "c"}]},
             "id": ["langchain", "AIMessage"]}}]]},
         "extra": {"metadata": {"session_id": "s"}, "invocation_params": {"tools": []}},
         "feedback": [{"key": "thumbs", "score": 1, "correction": {"output": "Hello!"}}]},
        {"key": "thumbs", "run_id": "l", "value": "up", "feedback_source": {"type": "app"}},
    ],
    "langfuse": [
        {"id": "f", "timestamp": TIME, "sessionId": "s", "input": "Hi", "output": "Hello",
         "observations": [{"id": "o", "type": "GENERATION", "input": ASKED, "output": TOLD}],
         "scores": [{"name": "thumbs", "dataType": "BOOLEAN", "value": 1, "traceId": "f"}]},
        {"name": "output", "traceId": "f", "dataType": "CORRECTION", "stringValue": "x = 2"},
    ],
    "tickets": [
        {"ticket_id": "T", "thread": [{"author": {"role": "user"}, "body": "Late", "public": True}],
         "draft": "Sorry.", "sent": "Sorry!", "rating": 5, "closed_at": TIME},
    ],
    "serving_log": [
        {"id": "r1", "messages": ASKED, "answers": ["x = 3", "x = 4"], "time": TIME},
        {"id": "r1", "label": True, "edit": "x = 2", "choice": 1, "regenerated": "r0", "score": 1},
    ],
    "answers": [
        {"prompt": ASKED, "completions": ["3", "4"], "scores": [1, 0], "labels": [True, False],
         "corrects": [True, None], "choice": 0, "reference": "3", "id": "a"},
        {"prompt": "2x = 6?", "completion": "3", "edited": "x = 3", "label": True},
    ],
    "chat_log": [
        {"request": {"messages": ASKED, "tools": [{"name": "f"}]},
         "response": {"id": "c", "created": 1767607200, "choices": [{"index": 0, "message": TOLD}]},
         "feedback": 1},
        {"request": {"messages": ASKED}, "response": [{"choices": [{"index": 0, "delta": {
            "content": "x", "tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}}]}]},
        {"custom_id": "q", "response": {"status_code": 200, "body": {"choices": [
            {"message": {**TOLD, "tool_calls": [CALL]}}]}}},
    ],
    "openai_chat": [
        {"messages": [*ASKED, {**TOLD, "weight": 0}, *ASKED[1:], TOLD], "tools": []},
    ],
}  # fmt: skip
