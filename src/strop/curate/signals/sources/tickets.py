"""Support tickets: the thread, the assistant's draft, what was sent, how it ended.

{"ticket_id": "T-7", "thread": [{"from": "customer", "text": "..."}], "draft": "...",
 "sent": "...", "resolution": "solved", "rating": 5, "closed_at": "2026-01-05T10:00:00Z"}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from strop.curate.signals.interaction import Found, Interaction, Signal, mark
from strop.curate.signals.sources.values import answer, conversation, first, text_id, time_of
from strop.data.forms import Row
from strop.errors import DataError
from strop.recipe.loading.yaml_text import shown
from strop.types import Message, Origin

NAME = "tickets"

THREADS = ("thread", "conversation", "comments", "messages")
DRAFTS = ("draft", "agent_draft", "suggested_reply", "suggestion")
SENT = ("sent", "reply", "final_reply", "sent_reply")
FIELDS = frozenset(
    (*THREADS, *DRAFTS, *SENT, "ticket_id", "id", "subject", "description", "resolution", "status",
     "rating", "csat", "satisfaction_rating", "closed_at", "updated_at", "created_at", "time")
)  # fmt: skip

_TEXTS = ("content", "text", "body", "message", "plain_body", "value")
_SPEAKERS = ("role", "from", "author", "sender", "author_role")
_ASKS = ("customer", "user", "requester", "end-user", "end_user", "client", "human")


def recognise(row: Row) -> bool:
    """Whether a row is a ticket: what was drafted or sent, and a thread or how it ended."""
    said = any(name in row for name in (*DRAFTS, *SENT))
    about = any(name in row for name in ("thread", "conversation", "comments", "resolution",
                                         "subject", "description"))  # fmt: skip
    return "ticket_id" in row or (said and about)


def read(row: Row, origin: Origin) -> Iterator[Found]:
    """A ticket: its answers are the draft, where there is one, and what was sent.

    Rating and resolution speak of what was sent. Where they say nothing, sending a draft as it
    stands is a thumb up.
    """
    thread = _thread(row, origin)
    draft = answer(first(row, *DRAFTS), "draft", origin)
    sent = answer(first(row, *SENT), "sent", origin)
    said = tuple(one for one in (draft, sent) if one)
    signals = list(_endings(row, origin)) if sent else []
    if draft and sent:
        if draft == sent and not signals:
            signals.append(Signal("thumb", "sent as drafted", True, origin))
        elif draft != sent:
            signals.append(Signal("edit", "sent", sent, origin, answer=0))
    if sent:
        signals.append(Signal("demonstration", "sent", True, origin))
    ticket = text_id(first(row, "ticket_id", "id"))
    yield Interaction(
        NAME, thread, said, origin, id=ticket, trace_id=ticket, signals=tuple(signals),
        time=time_of(first(row, "closed_at", "updated_at", "time", "created_at")),
    )  # fmt: skip


def _endings(row: Row, origin: Origin) -> Iterator[Signal]:
    for name in ("rating", "csat", "satisfaction_rating", "resolution", "status"):
        value = row.get(name)
        if name == "satisfaction_rating" and isinstance(value, Mapping):
            value = value.get("score")
        if value is None or (name == "status" and "resolution" in row):
            continue
        if isinstance(value, str | bool | int | float):
            yield mark(name, value, origin)
        else:
            raise DataError(f"`{name}` is {shown(value)}", where=str(origin),
                            fix="write a number or a word", kind="rating")  # fmt: skip


def _thread(row: Row, origin: Origin) -> list[Message]:
    """What came before the answer, as a conversation; subject and description where no thread is.

    An internal note (`public` false) was never said to the customer and is left out.
    """
    given = first(row, *THREADS)
    if given is None:
        opening = [one for one in (row.get("subject"), row.get("description")) if one]
        if not opening:
            raise DataError("the ticket has no thread", where=str(origin),
                            fix="export `thread`, or `description`", kind="no_prompt")  # fmt: skip
        return conversation("\n\n".join(map(str, opening)), "description", origin)
    if isinstance(given, list):
        given = [_turn(one) for one in given if not _internal(one)]
    return conversation(given, "thread", origin)


def _internal(turn: Any) -> bool:
    return isinstance(turn, Mapping) and turn.get("public") is False


def _turn(turn: Any) -> Any:
    if not isinstance(turn, Mapping):
        return turn
    speaker = first(turn, *_SPEAKERS)
    speaker = first(speaker, "role", "type") if isinstance(speaker, Mapping) else speaker
    asks = str(speaker).casefold() in _ASKS
    spoken = str(speaker).casefold() == "system"
    role = "system" if spoken else "user" if asks else "assistant"
    return {"role": role, "content": first(turn, *_TEXTS)} if speaker is not None else turn
