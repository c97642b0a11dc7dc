"""Langfuse: observations, traces and scores, from the API, the interface or a blob export.

Names are read in both spellings (`traceId`, `trace_id`). An observation of type GENERATION is an
interaction, and so is a trace with input and output whose own observations hold none.
"""

from __future__ import annotations

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
from strop.recipe.loading.yaml_text import shown
from strop.types import Origin

NAME = "langfuse"
DATA_TYPES = ("NUMERIC", "BOOLEAN", "CATEGORICAL", "CORRECTION")
GENERATIONS = ("GENERATION", "AGENT", "CHAIN")
"""Types of observation that may be what a user asked and was told, the most telling first."""

_BOTH = {
    "traceId": "trace_id", "observationId": "observation_id", "sessionId": "session_id",
    "userId": "user_id", "dataType": "data_type", "stringValue": "string_value",
    "startTime": "start_time", "endTime": "end_time", "createdAt": "created_at",
    "updatedAt": "updated_at", "parentObservationId": "parent_observation_id",
    "completionStartTime": "completion_start_time", "modelParameters": "model_parameters",
    "projectId": "project_id", "statusMessage": "status_message", "usageDetails": "usage_details",
    "costDetails": "cost_details", "promptName": "prompt_name", "promptId": "prompt_id",
    "promptVersion": "prompt_version", "modelId": "model_id", "totalCost": "total_cost",
    "timeToFirstToken": "time_to_first_token", "configId": "config_id", "queueId": "queue_id",
    "authorUserId": "author_user_id", "htmlPath": "html_path", "providedModelName":
    "provided_model_name", "internalModelId": "internal_model_id", "inputPrice": "input_price",
    "outputPrice": "output_price", "totalPrice": "total_price", "traceName": "trace_name",
    "calculatedInputCost": "calculated_input_cost", "calculatedOutputCost":
    "calculated_output_cost", "calculatedTotalCost": "calculated_total_cost",
    "promptTokens": "prompt_tokens", "completionTokens": "completion_tokens",
    "totalTokens": "total_tokens", "longStringValue": "long_string_value",
    "executionTraceId": "execution_trace_id",
}  # fmt: skip
FIELDS = frozenset(
    [*_BOTH, *_BOTH.values(), "id", "type", "name", "timestamp", "input{}", "output{}", "model",
     "level", "usage", "latency", "unit", "environment", "version", "release", "tags", "public",
     "bookmarked", "observations", "scores", "value", "comment", "source", "trace"]
)  # fmt: skip


def recognise(row: Row) -> bool:
    """Whether a row is an observation, a score or a trace of Langfuse."""
    trace = "traceId" in row or "trace_id" in row
    observation = trace and isinstance(row.get("type"), str) and row["type"].isupper()
    score = _is_score(row) and (trace or "dataType" in row or "data_type" in row)
    whole = "timestamp" in row and "id" in row and {"input", "output"} <= row.keys()
    own = {"sessionId", "session_id", "observations", "scores", "environment", "projectId"}
    return observation or score or (whole and bool(own & row.keys()))


def _is_score(row: Row) -> bool:
    valued = {"dataType", "data_type", "value", "stringValue", "string_value"} & row.keys()
    return bool(valued) and "name" in row and "type" not in row and "input" not in row


def read(row: Row, origin: Origin) -> Iterator[Found]:
    """What a row holds; a trace brings its own observations and scores along."""
    if _is_score(row):
        yield from _score(row, origin)
        return
    if "type" in row and first(row, "traceId", "trace_id") is not None:
        if row["type"] in GENERATIONS:
            yield _interaction(row, text_id(first(row, "traceId", "trace_id")), origin)
        return
    trace = text_id(row.get("id"))
    within = [one for one in objects(row.get("observations")) if _is_answer(one)]
    if within:
        for one in within:
            yield _interaction({"sessionId": first(row, "sessionId", "session_id"), **one}, trace,
                               origin)  # fmt: skip
    else:
        yield _interaction(row, trace, origin)
    for one in objects(row.get("scores")):
        yield from _score({"traceId": trace, **one}, origin)


def _is_answer(observation: Mapping[str, Any]) -> bool:
    return observation.get("type") == "GENERATION" and observation.get("input") is not None


def _interaction(row: Row, trace: str | None, origin: Origin) -> Interaction:
    asked, told = row.get("input"), row.get("output")
    said = answer(told, "output", origin)
    tools = asked.get("tools") if isinstance(asked, Mapping) else None
    return Interaction(
        NAME,
        None if asked in (None, "") else conversation(asked, "input", origin),
        (said,) if said else (),
        origin,
        id=text_id(row.get("id")),
        trace_id=trace,
        time=time_of(first(row, "startTime", "start_time", "timestamp")),
        session=text_id(first(row, "sessionId", "session_id")),
        whole=row.get("type") != "GENERATION",
        columns={"tools": tools} if tools else {},
    )


def _score(row: Row, origin: Origin) -> Iterator[Note]:
    """A score about an observation, else about its trace; a CORRECTION is an edit."""
    kind = first(row, "dataType", "data_type") or "NUMERIC"
    if kind not in DATA_TYPES:
        raise DataError(
            f"a score has the data type {shown(kind)}", where=str(origin),
            fix=f"export scores of type {', '.join(DATA_TYPES)}", kind="data_type",
        )  # fmt: skip
    observation = text_id(first(row, "observationId", "observation_id"))
    trace = text_id(first(row, "traceId", "trace_id"))
    refers = tuple([observation] if observation else [trace_key(trace)] if trace else [])
    name = str(row.get("name"))
    text = first(row, "stringValue", "string_value", "longStringValue", "long_string_value")
    time = time_of(first(row, "timestamp", "updatedAt", "updated_at", "createdAt", "created_at"))
    by = row.get("source") if isinstance(row.get("source"), str) else None
    value = row.get("value")
    if kind == "CORRECTION":
        edited = text if text is not None else value
        yield Note(refers, Signal("edit", name, edited, origin, time=time, by=by))
        return
    if kind == "BOOLEAN" and not isinstance(value, bool):
        value = value == 1 if value in (0, 1) else None
    label = value if text is None else text
    if kind == "CATEGORICAL":
        value = None
    if value is None and not isinstance(label, str):
        raise DataError(
            f"the {kind} score {name!r} has the value {shown(row.get('value'))}",
            where=str(origin), fix="export its value, or drop the line", kind="no_value",
        )  # fmt: skip
    yield Note(refers, mark(name, value, origin, label=label, time=time, by=by))
