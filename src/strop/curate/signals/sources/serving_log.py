"""strop's own serving log: a row for each request, and rows of feedback that refer to it.

    {"id": "r-1", "model": "support", "weights": "3f2a...", "messages": [...], "answer": "...",
     "finish": "stop", "usage": {...}, "time": "2026-01-05T10:00:00Z", "session": "s-9"}
    {"id": "r-1", "label": true, "time": "..."}            a thumb
    {"id": "r-1", "edit": "...", "time": "..."}            the user's own version of the answer
    {"id": "r-1", "choice": 1, "time": "..."}              the chosen place among `answers`
    {"id": "r-2", "regenerated": "r-1", "time": "..."}     r-2 was asked for in place of r-1
    {"id": "r-1", "name": "resolved", "score": 0.8}        any other value by name

A request that was answered several times, side by side, has `answers` in place of `answer`, and
feedback may say by `index` which one it means. With `"plain": true` the model read and wrote text,
no chat. Rows with an `event` say what happened to the server. Users send empty messages: of such a
request nothing is made, and it is counted as one that asks nothing (`no_prompt`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from strop.curate.signals.interaction import Found, Interaction, Note, Signal, mark
from strop.curate.signals.sources.values import answer, conversation, text_id, time_of, what
from strop.data.forms import Row
from strop.errors import DataError
from strop.types import Origin

NAME = "serving_log"

SIGNALS = ("label", "edit", "choice", "regenerated", "score")
EVENTS = ("event", "state", "why", "standing.*", "answer_id", "shadow_answer", "scores.*",
          "share", "alpha", "signal", "scale", "scale.*")  # fmt: skip
FIELDS = frozenset(
    ("id", "model", "version", "weights", "entry", "caller", "messages", "plain", "tools", "answer",
     "answers", "finish", "usage.*", "time", "session", "trial", "arm", "metadata.*", "sampling.*",
     "sampled_tokens", "latency.*", "prompt_token_ids", "token_ids", "logprobs", "personal_data.*",
     "index", "name", "by", "comment", "score_label", "explanation", "digest", *EVENTS, *SIGNALS)
)  # fmt: skip


ELSEWHERE = frozenset(
    ("messages", "prompt", "completion", "choices", "request", "response", "custom_id")
)
"""Fields of other logs, whose rows may have an id and a signal as well."""


def recognise(row: Row) -> bool:
    """Whether a row is a request of the log, or a feedback about one."""
    asked = "messages" in row and bool({"answer", "answers"} & row.keys())
    told = "id" in row and bool({*SIGNALS, "comment"} & row.keys())
    return asked or "event" in row or (told and not ELSEWHERE & row.keys())


def read(row: Row, origin: Origin) -> Iterator[Found]:
    """The interaction of a request, or the signals of a feedback; nothing of an event."""
    if "event" in row:
        return
    id_ = text_id(row.get("id"))
    if id_ is None:
        raise DataError("the row has no `id`", where=str(origin),
                        fix="write the id that the answer was given", kind="no_id")  # fmt: skip
    if "messages" not in row:
        for signal in _signals(row, origin):
            yield Note((id_,), signal)
        return
    given = row["answers"] if isinstance(row.get("answers"), list) else [row.get("answer")]
    said = [answer(one, "answer", origin) for one in given]
    yield Interaction(
        NAME,
        None
        if _asks_nothing(row["messages"])
        else conversation(row["messages"], "messages", origin),
        tuple(said) if all(said) else (),
        origin,
        id=id_,
        trace_id=id_,
        time=time_of(row.get("time")),
        signals=tuple(_signals(row, origin)),
        session=text_id(row.get("session")),
        plain=row.get("plain") is True,
        columns={"tools": row["tools"]} if row.get("tools") else {},
    )


def _asks_nothing(messages: Any) -> bool:
    """Whether a user's turn has no words."""
    turns = messages if isinstance(messages, list) else []
    asked = [t.get("content") for t in turns if isinstance(t, dict) and t.get("role") == "user"]
    return any(not said or (isinstance(said, str) and not said.strip()) for said in asked)


def _signals(row: Row, origin: Origin) -> Iterator[Signal]:
    time = time_of(row.get("time"))
    by = text_id(row.get("by"))
    index = _place(row, "index", origin) if row.get("index") is not None else -1
    if row.get("label") is not None:
        if not isinstance(row["label"], bool):
            raise DataError(f"`label` is {what(row['label'])}", where=str(origin),
                            fix="use true or false", kind="label")  # fmt: skip
        yield Signal("thumb", "label", row["label"], origin, answer=index, time=time, by=by)
    if row.get("edit") is not None:
        yield Signal("edit", "edit", row["edit"], origin, answer=index, time=time, by=by)
    if row.get("choice") is not None:
        place = _place(row, "choice", origin)
        yield Signal("choice", "choice", True, origin, answer=place, time=time, by=by)
    if row.get("regenerated") is not None:
        earlier = text_id(row["regenerated"])
        if earlier is None:
            raise DataError(f"`regenerated` is {what(row['regenerated'])}", where=str(origin),
                            fix="write the id of the earlier answer",
                            kind="regenerated")  # fmt: skip
        yield Signal("regenerated", "regenerated", earlier, origin, time=time, by=by)
    if row.get("score") is not None:
        name = str(row.get("name") or "score")
        told = mark(name, row["score"], origin, label=row.get("score_label"), time=time, by=by)
        yield replace(told, answer=index)


def _place(row: Row, name: str, origin: Origin) -> int:
    """The place of one of several answers."""
    place = row[name]
    if isinstance(place, bool) or not isinstance(place, int) or place < 0:
        raise DataError(f"`{name}` is {what(place)}", where=str(origin),
                        fix="write the place of the answer that is meant, from 0",
                        kind=name)  # fmt: skip
    return place
