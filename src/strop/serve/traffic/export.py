"""The log in the forms of others: OpenTelemetry's (OTLP as JSON) and Langfuse's.

OTLP: a span for each answer with the attributes `gen_ai.*` of the semantic conventions for
generative AI, a log record `gen_ai.evaluation.result` for each thing that was said of it. Langfuse:
observations of type GENERATION and scores, as its API exports them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from strop.files import sha256_hex
from strop.http import HttpClient

Row = Mapping[str, Any]
AT_ONCE = 200
"""Spans of one OTLP object: a line of the file, a request to a collector."""


def langfuse(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """One object for each answer and each score."""
    for row in rows:
        if "messages" in row:
            yield _observation(row)
        elif "digest" in row:
            yield from map(_score, [row] * len(_said(row)), _said(row))


def otlp(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """Objects as a collector takes them: spans for `/v1/traces`, log records for `/v1/logs`."""
    spans: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    for row in rows:
        if "messages" in row:
            spans.append(_span(row))
        elif "digest" in row:
            records += [_record(row, *said) for said in _said(row)]
        if len(spans) + len(records) >= AT_ONCE:
            yield from _batches(spans, records)
            spans, records = [], []
    yield from _batches(spans, records)


FORMS: dict[str, Callable[[Iterable[Row]], Iterator[dict[str, Any]]]] = {
    "langfuse": langfuse,
    "otlp": otlp,
}

PATHS = {"resourceSpans": "/v1/traces", "resourceLogs": "/v1/logs"}
"""Where a collector takes an OTLP object."""


def send(objects: Iterable[Mapping[str, Any]], endpoint: str) -> None:
    """To an OpenTelemetry collector, as JSON over HTTP. Raises `HttpError` where it does not take
    one."""
    client = HttpClient()
    for one in objects:
        path = next(path for name, path in PATHS.items() if name in one)
        client.tell(endpoint.rstrip("/") + path, one)


Said = tuple[str, float | None, str | None, str | None]
"""Name, value, label and explanation of one thing that was said."""


def _said(row: Row) -> list[Said]:
    """All that one feedback says."""
    found: list[Said] = []
    comment = row.get("comment")
    if "label" in row:
        found.append(("thumb", float(row["label"]), "up" if row["label"] else "down", comment))
    if "edit" in row:
        found.append(("edit", None, "edited", row["edit"]))
    if "choice" in row:
        found.append(("choice", float(row["choice"]), None, comment))
    if "name" in row:
        score = row.get("score")
        value, label = (None, score) if isinstance(score, str) else (score, row.get("score_label"))
        found.append((row["name"], value, label, row.get("explanation")))
    return found or [("comment", None, "comment", comment)]


def _answers(row: Row) -> list[dict[str, Any]]:
    """The choices as messages."""
    given = row["answers"] if "answers" in row else [row["answer"]]
    return [one[-1] if isinstance(one, list) else {"role": "assistant", "content": one}
            for one in given]  # fmt: skip


def _trace(row: Row) -> tuple[str, str]:
    """Ids of trace and span: hashes of the answer's id, so that feedback finds them."""
    digest = sha256_hex(str(row["id"]))
    return digest[:32], digest[32:48]


def _times(row: Row) -> tuple[datetime, datetime]:
    end = datetime.fromisoformat(row["time"])
    seconds = (row.get("latency") or {}).get("total") or 0.0
    return end - timedelta(seconds=seconds), end


def _observation(row: Row) -> dict[str, Any]:
    start, end = _times(row)
    answers = _answers(row)
    used = row["usage"]
    return {
        "id": row["id"], "traceId": _trace(row)[0], "type": "GENERATION", "name": "chat",
        "startTime": start.isoformat(), "endTime": end.isoformat(), "model": row["model"],
        "version": row["weights"], "sessionId": row["session"], "input": row["messages"],
        "output": answers[0] if len(answers) == 1 else answers,
        "modelParameters": row["sampling"],
        "usageDetails": {"input": used["prompt_tokens"], "output": used["completion_tokens"]},
    }  # fmt: skip


def _score(row: Row, said: Said) -> dict[str, Any]:
    name, value, label, explanation = said
    score = {
        "id": f"{row['id']}-{row['digest']}-{name}", "traceId": _trace(row)[0],
        "observationId": row["id"], "name": name, "timestamp": row["time"], "source": "API",
    }  # fmt: skip
    if name == "edit":
        return {**score, "dataType": "CORRECTION", "stringValue": explanation}
    if name == "thumb":
        score |= {"dataType": "BOOLEAN", "value": value}
    elif value is None:
        score |= {"dataType": "CATEGORICAL", "stringValue": label}
    else:
        score |= {"dataType": "NUMERIC", "value": value}
    return score | ({"comment": explanation} if explanation else {})


def _span(row: Row) -> dict[str, Any]:
    trace, span = _trace(row)
    start, end = _times(row)
    used, how = row["usage"], row["sampling"]
    told = [{"role": "assistant", "parts": _parts(one), "finish_reason": finish}
            for one, finish in zip(_answers(row), row["finish"], strict=True)]  # fmt: skip
    asked = [{"role": turn["role"], "parts": _parts(turn)} for turn in row["messages"]]
    attributes = {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "strop",
        "gen_ai.request.model": row["model"], "gen_ai.response.model": row["version"],
        "gen_ai.response.id": row["id"], "gen_ai.conversation.id": row["session"],
        "gen_ai.request.temperature": how.get("temperature"),
        "gen_ai.request.top_p": how.get("top_p"), "gen_ai.request.seed": how.get("seed"),
        "gen_ai.request.max_tokens": how.get("max_tokens"),
        "gen_ai.response.finish_reasons": json.dumps(row["finish"]),
        "gen_ai.usage.input_tokens": used["prompt_tokens"],
        "gen_ai.usage.output_tokens": used["completion_tokens"],
        "gen_ai.input.messages": json.dumps(asked), "gen_ai.output.messages": json.dumps(told),
    }  # fmt: skip
    if row.get("tools"):
        attributes["gen_ai.tool.definitions"] = json.dumps(row["tools"])
    return {"traceId": trace, "spanId": span, "name": f"chat {row['model']}", "kind": 2,
            "startTimeUnixNano": _nanoseconds(start), "endTimeUnixNano": _nanoseconds(end),
            "attributes": _attributes(attributes)}  # fmt: skip


def _parts(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A message in the conventions' parts."""
    if message.get("role") == "tool":
        return [{"type": "tool_call_response", "id": message.get("tool_call_id"),
                 "response": message.get("content")}]  # fmt: skip
    parts: list[dict[str, Any]] = []
    if message.get("reasoning_content"):
        parts.append({"type": "reasoning", "content": message["reasoning_content"]})
    if message.get("content"):
        parts.append({"type": "text", "content": message["content"]})
    for call in message.get("tool_calls") or ():
        function = call["function"]
        given = function["arguments"]
        parts.append({"type": "tool_call", "id": call.get("id"), "name": function["name"],
                      "arguments": json.loads(given) if isinstance(given, str) else given
                      })  # fmt: skip
    return parts


def _record(
    row: Row, name: str, value: float | None, label: str | None, explanation: str | None
) -> dict[str, Any]:
    trace, span = _trace(row)
    attributes = {
        "gen_ai.evaluation.name": name, "gen_ai.evaluation.score.value": value,
        "gen_ai.evaluation.score.label": label, "gen_ai.evaluation.explanation": explanation,
        "gen_ai.response.id": row["id"],
    }  # fmt: skip
    return {"traceId": trace, "spanId": span, "eventName": "gen_ai.evaluation.result",
            "timeUnixNano": _nanoseconds(datetime.fromisoformat(row["time"])),
            "attributes": _attributes(attributes)}  # fmt: skip


def _nanoseconds(time: datetime) -> str:
    return f"{round(time.timestamp() * 1e6)}000"


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """OTLP's list of keys and values, without those that are unknown."""
    return [{"key": name, "value": _any(value)} for name, value in values.items()
            if value is not None]  # fmt: skip


def _any(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"stringValue": value}
    return {"doubleValue": value} if isinstance(value, float) else {"intValue": str(value)}


def _batches(
    spans: list[dict[str, Any]], records: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    of = {"attributes": _attributes({"service.name": "strop"})}
    scope = {"name": "strop"}
    if spans:
        yield {"resourceSpans": [{"resource": of, "scopeSpans": [{"scope": scope,
                                                                  "spans": spans}]}]}  # fmt: skip
    if records:
        yield {"resourceLogs": [{"resource": of, "scopeLogs": [{"scope": scope,
                                                                "logRecords": records}]}]
               }  # fmt: skip
