"""MLflow traces with their assessments (feedback and expectations).

A trace is `{"info": {...}, "data": {...}}` (its JSON) or a row of `search_traces`. The interaction
is what the root span was given and gave; of a span that holds no messages, its texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from strop.curate.signals.interaction import Found, Interaction, Note, Signal, mark, trace_key
from strop.curate.signals.sources.values import (
    answer,
    conversation,
    first,
    objects,
    text_id,
    time_of,
)
from strop.data.forms import Row
from strop.errors import DataError
from strop.types import Origin

NAME = "mlflow"

REFERENCES = ("expected_response", "expected_answer", "expected_output", "expected_facts",
              "ground_truth", "answer", "reference", "target")  # fmt: skip
"""Names of expectations that are the right answer; another one is listed as not read."""

_INFO = ("trace_id", "request_id", "client_request_id", "experiment_id", "trace_location",
         "request_time", "timestamp_ms", "execution_time_ms", "execution_duration",
         "execution_duration_ms", "state", "status", "tags.mlflow.*", "trace_metadata.mlflow.*",
         "request_metadata.mlflow.*", "assessments", "request_preview",
         "response_preview")  # fmt: skip
FIELDS = frozenset(
    [*_INFO, *(f"info.{name}" for name in _INFO), "data.spans", "data.request{}",
     "data.response{}", "spans", "request{}", "response{}", "trace", "assessment_id",
     "assessment_name", "name", "source", "create_time", "last_update_time", "create_time_ms",
     "last_update_time_ms", "feedback", "expectation", "rationale", "metadata.mlflow.*", "error",
     "span_id", "valid", "overrides", "run_id", "timestamp"]
)  # fmt: skip


def recognise(row: Row) -> bool:
    """Whether a row is a trace or an assessment of MLflow."""
    whole = isinstance(row.get("info"), Mapping) and isinstance(row.get("data"), Mapping)
    table = "assessments" in row or "trace_metadata" in row or "request_metadata" in row
    lone = "trace_id" in row and ("feedback" in row or "expectation" in row) and "source" in row
    return whole or table or lone


def read(row: Row, origin: Origin) -> Iterator[Found]:
    """The interaction of a trace and its assessments, or an assessment by itself."""
    if "info" not in row and ("feedback" in row or "expectation" in row):
        yield from _assessment(row, text_id(row.get("trace_id")), origin)
        return
    info = row["info"] if isinstance(row.get("info"), Mapping) else row
    trace = text_id(first(info, "trace_id", "request_id"))
    yield _interaction(row, info, trace, origin)
    for one in objects(info.get("assessments")):
        yield from _assessment(one, trace, origin)


def _interaction(row: Row, info: Row, trace: str | None, origin: Origin) -> Interaction:
    data = row["data"] if isinstance(row.get("data"), Mapping) else row
    root, attributes = _root(data)
    asked = _json(attributes.get("mlflow.spanInputs"))
    told = _json(attributes.get("mlflow.spanOutputs"))
    asked = _json(first(data, "request")) if asked is None else asked
    told = _json(first(data, "response")) if told is None else told
    asked = _json(info.get("request_preview")) if asked is None else asked
    told = _json(info.get("response_preview")) if told is None else told
    said = answer(told, "response", origin)
    tools = asked.get("tools") if isinstance(asked, Mapping) else None
    metadata = first(info, "trace_metadata", "request_metadata") or {}
    return Interaction(
        NAME,
        None if asked in (None, "", {}) else conversation(asked, "request", origin),
        (said,) if said else (),
        origin,
        id=trace,
        trace_id=trace,
        time=time_of(first(info, "request_time", "timestamp_ms")),
        aliases=tuple(filter(None, [text_id(root.get("span_id")), *_span_ids(data)])),
        session=text_id(metadata.get("mlflow.trace.session")),
        columns={"tools": tools} if tools else {},
    )


def _root(data: Row) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The span without a parent, and its attributes; of none, two empty objects."""
    spans = list(objects(data.get("spans")))
    roots = [one for one in spans if first(one, "parent_span_id", "parent_id") in (None, "")]
    root = next(iter(roots or spans), {})
    attributes = root.get("attributes")
    return root, attributes if isinstance(attributes, Mapping) else {}


def _span_ids(data: Row) -> list[str | None]:
    return [text_id(first(one, "span_id", "context.span_id")) for one in objects(data.get("spans"))]


def _json(value: Any) -> Any:
    """A value that may have been written as JSON text, as MLflow does with what spans hold."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _assessment(row: Row, trace: str | None, origin: Origin) -> Iterator[Note]:
    name = text_id(first(row, "assessment_name", "name"))
    if name is None:
        raise DataError("an assessment has no name", where=str(origin),
                        fix="export `assessment_name`", kind="unnamed_signal")  # fmt: skip
    if row.get("valid") is False or row.get("error") is not None:
        return  # taken back, or its judge failed
    span = text_id(row.get("span_id"))
    refers = (*([span] if span else []), *([trace, trace_key(trace)] if trace else []))
    time = time_of(first(row, "last_update_time", "last_update_time_ms", "create_time",
                         "create_time_ms"))  # fmt: skip
    by = text_id(first(row, "source.source_type"))
    expected = row.get("expectation")
    if isinstance(expected, Mapping):
        value = _json(first(expected, "serialized_value.value") or expected.get("value"))
        if name in REFERENCES:
            yield Note(refers, Signal("reference", name, value, origin, time=time, by=by))
        else:
            yield Note(refers, mark(f"{name} (expectation)", None, origin, time=time, by=by))
        return
    yield Note(refers, mark(name, first(row, "feedback.value"), origin, time=time, by=by))
