"""OpenTelemetry GenAI: spans and log records, as OTLP JSON or as rows of a table.

Semantic conventions for generative AI (attributes `gen_ai.*`), whose messages are a role and parts
of type text, reasoning, tool_call and tool_call_response. An evaluation is the event
`gen_ai.evaluation.result`, in the span it is about, in a child of it, or in a log record that names
span or response.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from strop.curate.signals.interaction import Found, Interaction, Note, mark, trace_key
from strop.curate.signals.sources.values import ROLES, first, objects, text_id, time_of
from strop.data.forms import Row
from strop.data.messages import messages_of
from strop.errors import DataError
from strop.recipe.loading.yaml_text import shown
from strop.types import Message, Origin

NAME = "otel"
EVALUATION = "gen_ai.evaluation.result"
DETAILS = "gen_ai.client.inference.operation.details"

WHOLE = ("invoke_agent", "create_agent", "invoke_workflow")
"""Operations that the model's own calls stand under."""

_SPAN = ("trace_id", "traceId", "span_id", "spanId", "parent_span_id", "parentSpanId", "parent_id",
         "context.trace_id", "context.span_id", "context.trace_state", "name", "event_name",
         "eventName", "kind", "status", "start_time", "startTimeUnixNano", "end_time",
         "endTimeUnixNano", "timeUnixNano", "observedTimeUnixNano", "timestamp", "flags",
         "resource", "scope", "links", "droppedAttributesCount", "droppedEventsCount",
         "droppedLinksCount", "traceState", "severityNumber", "severityText", "events",
         "attributes.gen_ai.*",
         "attributes.server.*", "attributes.error.type", "attributes.session.id",
         "attributes.event.name")  # fmt: skip
FIELDS = frozenset(_SPAN)


def recognise(row: Row) -> bool:
    """Whether a row is OTLP JSON, or a span or log record with attributes."""
    if {"resourceSpans", "resource_spans", "resourceLogs", "resource_logs"} & row.keys():
        return True
    if EVALUATION in (row.get("event_name"), row.get("eventName"), row.get("name")):
        return True
    attributes = row.get("attributes")
    known = {"trace_id", "traceId", "context", "span_id", "spanId"} & row.keys()
    if isinstance(attributes, list):
        return bool(known)
    if not isinstance(attributes, Mapping):
        return False
    gen_ai = any(str(key).startswith("gen_ai.") for key in attributes)
    return gen_ai or (bool(known) and ("start_time" in row or "startTimeUnixNano" in row))


def unwrap(row: Row) -> Iterator[Row]:
    """The spans and log records of an OTLP object, attributes as plain objects."""
    for outer, inner, held in (("resourceSpans", "scopeSpans", "spans"),
                               ("resource_spans", "scope_spans", "spans"),
                               ("resourceLogs", "scopeLogs", "logRecords"),
                               ("resource_logs", "scope_logs", "log_records")):  # fmt: skip
        for resource in objects(row.get(outer)):
            for scope in objects(resource.get(inner)):
                yield from map(_plain, objects(scope.get(held)))
    if "attributes" in row:
        yield _plain(row)


def _plain(span: Row) -> Row:
    attributes = span.get("attributes")
    return {**span, "attributes": _attributes(attributes)}


def _attributes(value: Any) -> dict[str, Any]:
    """`[{"key": "a", "value": {"intValue": "3"}}]` as `{"a": 3}`; an object stays as it is."""
    if isinstance(value, Mapping):
        return dict(value)
    return {str(one.get("key")): _any_value(one.get("value")) for one in objects(value)}


def _any_value(value: Any) -> Any:
    """OTLP's `AnyValue`."""
    if not isinstance(value, Mapping):
        return value
    if "arrayValue" in value:
        return [_any_value(one) for one in value["arrayValue"].get("values") or []]
    if "kvlistValue" in value:
        return _attributes(value["kvlistValue"].get("values") or [])
    if "intValue" in value:
        return int(value["intValue"])
    named = ("stringValue", "boolValue", "doubleValue", "bytesValue")
    return next((value[name] for name in named if name in value), None)


def read(row: Row, origin: Origin) -> Iterator[Found]:
    """The interaction of a span that has messages, and the evaluations in its events."""
    attributes = _attributes(row.get("attributes"))
    trace = text_id(first(row, "trace_id", "traceId", "context.trace_id"))
    span = text_id(first(row, "span_id", "spanId", "context.span_id"))
    named = first(row, "event_name", "eventName") or attributes.get("event.name") or row.get("name")
    if named == EVALUATION:
        parent = text_id(first(row, "parent_span_id", "parentSpanId", "parent_id"))
        yield _note(attributes, trace, (parent, span), row, origin)
        return
    said = dict(attributes)
    for event in objects(row.get("events")):
        inside = _attributes(event.get("attributes"))
        if event.get("name") == EVALUATION:
            yield _note(inside, trace, (span,), event, origin)
        elif event.get("name") == DETAILS:
            said |= inside
    asked = said.get("gen_ai.input.messages")
    told = said.get("gen_ai.output.messages")
    if asked is None and told is None:
        return
    system = _system(said.get("gen_ai.system_instructions"))
    prompt = None if asked is None else system + _messages(asked, "gen_ai.input.messages", origin)
    answers = () if told is None else _answers(told, origin)
    response = text_id(attributes.get("gen_ai.response.id"))
    tools = said.get("gen_ai.tool.definitions")
    session = said.get("gen_ai.conversation.id", said.get("session.id"))
    yield Interaction(
        NAME, prompt, answers, origin, id=span or response, trace_id=trace,
        time=time_of(first(row, "start_time", "startTimeUnixNano", "timeUnixNano", "timestamp")),
        aliases=(response,) if response else (), session=text_id(session),
        whole=str(said.get("gen_ai.operation.name")) in WHOLE,
        columns={"tools": tools} if tools else {},
    )  # fmt: skip


def _note(
    attributes: Mapping[str, Any], trace: str | None, spans: tuple[str | None, ...], row: Row,
    origin: Origin,
) -> Note:  # fmt: skip
    """An evaluation: by the response's id, else by the span, else by the trace."""
    name = attributes.get("gen_ai.evaluation.name")
    if not isinstance(name, str) or not name:
        raise DataError(
            f"an event {EVALUATION} has no `gen_ai.evaluation.name`",
            where=str(origin), fix="name what was evaluated", kind="unnamed_signal",
        )  # fmt: skip
    label = attributes.get("gen_ai.evaluation.score.label")
    response = text_id(attributes.get("gen_ai.response.id"))
    refers = [one for one in (response, *spans) if one]
    refers += [trace_key(trace)] if trace else []
    return Note(
        tuple(refers),
        mark(
            name, attributes.get("gen_ai.evaluation.score.value"), origin, label=label,
            time=time_of(first(row, "timeUnixNano", "timestamp", "time", "start_time",
                               "startTimeUnixNano")),
        ),
    )  # fmt: skip


def _listed(value: Any, name: str, origin: Origin) -> list[Mapping[str, Any]]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise DataError(f"`{name}` is no JSON", where=str(origin), fix="export it whole",
                            kind="messages") from None  # fmt: skip
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        raise DataError(f"`{name}` is no list of messages (it is {shown(value)})",
                        where=str(origin), fix="export it as JSON", kind="messages")  # fmt: skip
    return value


def _system(value: Any) -> list[Message]:
    """System instructions: a text, or parts of type text."""
    parts = list(objects(value))
    text = "".join(str(part.get("content", "")) for part in parts) if parts else value
    return [{"role": "system", "content": text}] if isinstance(text, str) and text.strip() else []


def _messages(value: Any, name: str, origin: Origin) -> list[Message]:
    turns = [turn for one in _listed(value, name, origin) for turn in _turns(one, name, origin)]
    return messages_of(turns, name, origin)


def _answers(value: Any, origin: Origin) -> tuple[list[Message], ...]:
    """One answer for each output message: they are choices of one request."""
    name = "gen_ai.output.messages"
    said = [
        _turns({"role": "assistant", **one}, name, origin) for one in _listed(value, name, origin)
    ]
    return tuple(messages_of(one, name, origin) for one in said if one)


def _turns(message: Mapping[str, Any], name: str, origin: Origin) -> list[Message]:
    """The messages of a template: a tool's result is a turn of its own, reasoning a key."""
    role = str(message.get("role"))
    texts, thoughts, calls, results = [], [], [], []
    for part in objects(message.get("parts")):
        kind, content = part.get("type"), part.get("content")
        if kind == "text":
            texts.append(str(content or ""))
        elif kind == "reasoning":
            thoughts.append(str(content or ""))
        elif kind == "tool_call":
            called = {"name": part.get("name"), "arguments": part.get("arguments") or {}}
            calls.append({"id": part.get("id"), "type": "function", "function": called})
        elif kind == "tool_call_response":
            results.append(_result(part))
        else:
            raise DataError(
                f"`{name}` holds a part of type {shown(kind)}", where=str(origin),
                fix="only text, reasoning, tool_call and tool_call_response are read",
                kind="content_part",
            )  # fmt: skip
    if isinstance(message.get("content"), str):
        texts.append(message["content"])
    own: Message = {"role": ROLES.get(role, role), "content": "".join(texts)}
    if thoughts:
        own["reasoning_content"] = "".join(thoughts)
    if calls:
        own["tool_calls"] = calls
    return ([own] if own["content"].strip() or calls else []) + results


def _result(part: Mapping[str, Any]) -> Message:
    result = part.get("response", part.get("result"))
    text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    return {"role": "tool", "content": text or "null", "tool_call_id": part.get("id")}
