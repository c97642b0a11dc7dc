"""LangSmith: runs and their feedback.

A run of type llm is an interaction; of a trace without one, its root run. Feedback has a key with
`score` or `value`; its `correction` is what the answer should have been, or what the score should.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from strop.curate.signals.interaction import Found, Interaction, Note, Signal, mark, trace_key
from strop.curate.signals.sources.values import (
    HOLDERS,
    answer,
    conversation,
    first,
    objects,
    text_id,
    time_of,
)
from strop.data.forms import Row
from strop.types import Origin

NAME = "langsmith"

FIELDS = frozenset(
    ["id", "run_id", "trace_id", "session_id", "session_name", "run_type", "name", "inputs{}",
     "outputs{}", "outputs.llm_output", "outputs.run", "error", "start_time",
     "end_time", "parent_run_id", "parent_run_ids",
     "child_run_ids", "child_runs", "dotted_order", "extra.metadata.session_id",
     "extra.metadata.thread_id", "extra.metadata.conversation_id", "extra.invocation_params",
     "extra.runtime", "extra.metadata.ls_*", "serialized", "events", "tags", "status",
     "feedback_stats", "reference_example_id", "manifest_id", "app_path", "url", "in_dataset",
     "total_tokens", "prompt_tokens", "completion_tokens", "total_cost", "prompt_cost",
     "completion_cost", "first_token_time", "last_queued_at", "execution_order", "feedback",
     "key", "score", "value", "comment", "correction", "created_at", "modified_at",
     "feedback_source", "comparative_experiment_id", "feedback_group_id", "inputs_preview",
     "outputs_preview", "is_root", "latency"]
)  # fmt: skip

_CORRECTED_SCORE = ("score", "value")


def recognise(row: Row) -> bool:
    """Whether a row is a run or a feedback of LangSmith."""
    return "run_type" in row or "feedback_source" in row or {"key", "run_id"} <= row.keys()


def read(row: Row, origin: Origin) -> Iterator[Found]:
    """The interaction of a run, or the signals of a feedback."""
    if "run_type" not in row:
        yield from _feedback(row, origin)
        return
    if row["run_type"] == "llm" or _stands_alone(row):
        yield _run(row, origin)
    for child in objects(row.get("child_runs")):
        yield from read({"trace_id": first(row, "trace_id", "id"), **child}, origin)
    for one in objects(row.get("feedback")):
        yield from _feedback({"run_id": row.get("id"), **one}, origin)


def _stands_alone(row: Row) -> bool:
    """Whether a run is a root that no model's run stands under."""
    children = list(objects(row.get("child_runs")))
    return row.get("parent_run_id") is None and not children and not row.get("child_run_ids")


def _run(row: Row, origin: Origin) -> Interaction:
    run, trace = text_id(row.get("id")), text_id(row.get("trace_id"))
    said = answer(row.get("outputs"), "outputs", origin)
    inputs = row.get("inputs")
    tools = first(row, "extra.invocation_params.tools", "inputs.tools")
    session = first(row, "extra.metadata.session_id", "extra.metadata.thread_id",
                    "extra.metadata.conversation_id")  # fmt: skip
    return Interaction(
        NAME,
        None if inputs in (None, {}, "") else conversation(inputs, "inputs", origin),
        (said,) if said else (),
        origin,
        id=run,
        trace_id=trace,
        time=time_of(row.get("start_time")),
        session=text_id(session),
        whole=row["run_type"] != "llm",
        columns={"tools": tools} if tools else {},
    )


def _feedback(row: Row, origin: Origin) -> Iterator[Note]:
    """A mark by its key; an edit where the correction is an answer."""
    run, trace = text_id(row.get("run_id")), text_id(row.get("trace_id"))
    refers = tuple([run, trace_key(run)] if run else []) + tuple(
        [trace_key(trace)] if trace else []
    )
    key = str(row.get("key"))
    time = time_of(first(row, "modified_at", "created_at"))
    by = text_id(first(row, "feedback_source.type"))
    correction, score, value = row.get("correction"), row.get("score"), row.get("value")
    if isinstance(correction, Mapping) and not correction.keys() - {*_CORRECTED_SCORE, "comment"}:
        score = correction.get("score", score)
        value = correction.get("value", value)
    elif isinstance(correction, str) or (
        isinstance(correction, Mapping) and correction.keys() & {*HOLDERS, "role"}
    ):
        yield Note(refers, Signal("edit", key, correction, origin, time=time, by=by))
    elif correction is not None:
        yield Note(refers, mark(f"{key}.correction", None, origin, time=time, by=by))
    if score is not None or value is not None:
        said = value if score is None else score
        yield Note(refers, mark(key, said, origin, label=value, time=time, by=by))
