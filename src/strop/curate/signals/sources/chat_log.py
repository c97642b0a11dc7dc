"""Raw chat-completions logs: request and response in one row, batch files, streamed answers.

    {"request": {"messages": [...]}, "response": {"choices": [...]}}     a proxy's or a client's log
    {"messages": [...], "choices": [...]}                                the same in one object
    {"custom_id": "7", "body": {"messages": [...]}}                      a batch's input file
    {"custom_id": "7", "response": {"status_code": 200, "body": {...}}}  a batch's output file

A streamed response is a list of chunks, or the text of the event stream.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from strop.curate.signals.interaction import Found, Interaction, Request, Signal, mark
from strop.curate.signals.sources.values import (
    answer,
    conversation,
    first,
    mapping,
    objects,
    text_id,
    time_of,
)
from strop.data.forms import Row
from strop.types import Message, Origin

NAME = "chat_log"

_CALL = ("id", "object", "created", "model", "usage", "choices", "system_fingerprint",
         "service_tier", "error", "prompt_filter_results", "provider", "request_id")  # fmt: skip
_ASKED = ("messages", "tools", "user", "model", "stream", "stream_options", "temperature", "top_p",
          "n", "max_tokens", "max_completion_tokens", "stop", "seed", "presence_penalty",
          "frequency_penalty", "response_format", "tool_choice", "parallel_tool_calls", "logprobs",
          "top_logprobs", "reasoning_effort", "store")  # fmt: skip
_OWN = ("id", "custom_id", "trace_id", "session_id", "conversation_id", "metadata.session_id",
        "metadata.conversation_id", "metadata.trace_id", "timestamp", "time", "created_at",
        "method", "url", "status", "status_code", "latency", "latency_ms", "error")  # fmt: skip
_MARKS = ("feedback", "label", "thumb", "score", "rating")

FIELDS = frozenset(
    [*_OWN, *_MARKS, *_CALL, *_ASKED]
    + [f"{inside}.{key}" for inside in ("request", "request.body", "body") for key in _ASKED]
    + [f"{inside}.{key}" for inside in ("response", "response.body", "body")
       for key in (*_CALL, "role", "content", "tool_calls")]
    + ["request.id", "request.url", "request.method", "response.status_code",
       "response.request_id", "response.status", "edited"]
)  # fmt: skip


def recognise(row: Row) -> bool:
    """Whether a row looks like one of the forms above."""
    return (
        "choices" in row
        or ("request" in row and "response" in row and "info" not in row)
        or "custom_id" in row
        or (
            isinstance(row.get("body"), Mapping)
            and bool({"messages", "choices"} & set(row["body"]))
        )
        or ("messages" in row and isinstance(row.get("response"), Mapping | list | str))
    )


def read(row: Row, origin: Origin) -> Iterator[Found]:
    """An interaction with one answer for each choice; a `Request` where only the prompt is here."""
    asked = _asked(row)
    id_ = text_id(first(row, "custom_id", "id", "request.id"))
    prompt = None if asked is None else conversation(asked["messages"], "messages", origin)
    columns = {"tools": asked["tools"]} if asked and asked.get("tools") else {}
    told = {"response", "choices"} & row.keys() or "choices" in mapping(row.get("body"))
    if not told and prompt is not None and id_ is not None:
        yield Request(id_, prompt, origin, columns)
        return
    response = _response(row)
    user = first(asked or {}, "user")
    session = first(row, "session_id", "conversation_id", "metadata.session_id",
                    "metadata.conversation_id")  # fmt: skip
    answers = _answers(response, origin)
    yield Interaction(
        NAME,
        prompt,
        answers,
        origin,
        id=id_ or text_id(response.get("id")),
        trace_id=text_id(first(row, "trace_id", "metadata.trace_id")),
        time=time_of(first(row, "timestamp", "time", "created_at") or response.get("created")),
        signals=_signals(row, origin),
        aliases=tuple(one for one in (text_id(response.get("id")),) if one),
        session=text_id(session) or text_id(user),
        request=id_ if prompt is None else None,
        columns=columns,
    )


def _asked(row: Row) -> Mapping[str, Any] | None:
    """The object with the messages that were sent."""
    places = (row, row.get("request"), mapping(row.get("request")).get("body"), row.get("body"))
    return next((one for one in map(mapping, places) if one.get("messages") is not None), None)


def _response(row: Row) -> Mapping[str, Any]:
    """The object with the choices, `{}` where there is none."""
    response = row.get("response", row.get("body") if "messages" not in row else None)
    if "choices" in row:
        return row
    body = mapping(response).get("body", response)
    if isinstance(body, list):
        return assembled([one for one in body if isinstance(one, Mapping)])
    if isinstance(body, str):
        chunks = _events(body)
        return assembled(chunks) if chunks else {"choices": [{"message": {"content": body}}]}
    body = mapping(body)
    alone = body and not {"choices", "error"} & body.keys() and "content" in body
    return {"choices": [{"message": body}]} if alone else body


def _answers(response: Mapping[str, Any], origin: Origin) -> tuple[list[Message], ...]:
    choices = response.get("choices")
    listed = list(objects(choices))
    if any("delta" in one for one in listed):
        listed = assembled([response])["choices"]
    listed = sorted(listed, key=_number)
    said = [answer(one.get("message", one.get("text")), "choices", origin) for one in listed]
    return tuple(one for one in said if one)


def _events(text: str) -> list[Mapping[str, Any]]:
    """The objects of an event stream: lines `data: {...}`."""
    lines = [line[5:].strip() for line in text.splitlines() if line.startswith("data:")]
    try:
        found = [json.loads(line) for line in lines if line and line != "[DONE]"]
    except ValueError:
        return []
    return [one for one in found if isinstance(one, Mapping)]


def assembled(chunks: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Streamed chunks as the one response that they are the pieces of.

    Texts are joined choice by choice, the arguments of a tool call by the call's `index`:
    `assembled([{"choices": [{"delta": {"content": "x ="}}]}, {"choices": [{"delta": {"content":
    " 3"}}]}])["choices"][0]["message"]["content"] == "x = 3"`.
    """
    said: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for choice in objects(chunk.get("choices")):
            delta = mapping(choice.get("delta") or choice.get("message"))
            message = said.setdefault(_number(choice), {"role": "assistant"})
            for key in ("content", "reasoning_content", "refusal"):
                if isinstance(delta.get(key), str):
                    message[key] = message.get(key, "") + delta[key]
            for call in objects(delta.get("tool_calls")):
                _add_call(message.setdefault("tool_calls", {}), call)
    head = {key: chunks[0].get(key) for key in ("id", "created", "model")} if chunks else {}
    for message in said.values():
        if "tool_calls" in message:
            message["tool_calls"] = list(message["tool_calls"].values())
    return head | {"choices": [{"index": n, "message": one} for n, one in sorted(said.items())]}


def _number(piece: Mapping[str, Any]) -> int:
    """The place of a choice or a call among the others."""
    place = piece.get("index")
    return place if isinstance(place, int) else 0


def _add_call(calls: dict[int, dict[str, Any]], piece: Mapping[str, Any]) -> None:
    call = calls.setdefault(
        _number(piece), {"type": "function", "function": {"name": "", "arguments": ""}}
    )
    if piece.get("id"):
        call["id"] = piece["id"]
    function = mapping(piece.get("function"))
    for key in ("name", "arguments"):
        call["function"][key] += function[key] if isinstance(function.get(key), str) else ""


def _signals(row: Row, origin: Origin) -> tuple[Signal, ...]:
    """What a product wrote beside its log: `feedback`, `label`, `thumb`, `score`, `rating`."""
    found = [mark(key, row[key], origin) for key in _MARKS if _is_value(row.get(key))]
    if row.get("edited") is not None:
        found.append(Signal("edit", "edited", row["edited"], origin))
    return tuple(found)


def _is_value(value: Any) -> bool:
    return isinstance(value, bool | int | float | str)
