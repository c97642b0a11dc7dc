"""OpenAI's files for fine-tuning: conversations to imitate, and pairs of answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from strop.curate.signals.interaction import Found, Interaction, Signal
from strop.curate.signals.sources.values import answer, conversation, first, text_id, time_of
from strop.data.forms import Row
from strop.errors import DataError
from strop.types import Origin

CHAT, PREFERENCE = "openai_chat", "openai_preference"

CHAT_FIELDS = frozenset(("messages", "tools", "parallel_tool_calls", "id", "time"))
PREFERENCE_FIELDS = frozenset(
    ("input.messages", "input.tools", "input.parallel_tool_calls", "preferred_output",
     "non_preferred_output", "id", "time")
)  # fmt: skip


def is_chat(row: Row) -> bool:
    """Whether a row is a whole conversation."""
    return isinstance(row.get("messages"), list) and not {"prompt", "completion"} & row.keys()


def is_preference(row: Row) -> bool:
    """Whether a row is a pair of answers to one input."""
    return {"input", "preferred_output", "non_preferred_output"} <= row.keys()


def read_chat(row: Row, origin: Origin) -> Iterator[Found]:
    """A conversation to imitate: what is learnt are its assistant turns.

    Behind an assistant turn of `weight` 0, which is not to be learnt, the rest is learnt: that turn
    and all before it are the prompt.
    """
    turns = row["messages"]
    weighed = [
        n
        for n, turn in enumerate(turns)
        if isinstance(turn, Mapping) and turn.get("role") == "assistant" and turn.get("weight") == 0
    ]
    start = weighed[-1] + 1 if weighed else 0
    begins = next(
        (n for n in range(start, len(turns))
         if isinstance(turns[n], Mapping) and turns[n].get("role") == "assistant"),
        None,
    )  # fmt: skip
    if begins == 0:
        raise DataError("`messages` starts with the assistant, so there is nothing that it answers",
                        where=str(origin), fix="put a user turn before it, or drop that turn",
                        kind="no_prompt")  # fmt: skip
    split = len(turns) if begins is None else begins
    told = conversation(turns[split:], "messages", origin) if turns[split:] else []
    yield Interaction(
        CHAT,
        conversation(turns[:split], "messages", origin),
        (told,) if told else (),
        origin,
        id=text_id(row.get("id")),
        time=time_of(row.get("time")),
        signals=(Signal("demonstration", "messages", True, origin),),
        columns={"tools": row["tools"]} if row.get("tools") else {},
    )


def read_preference(row: Row, origin: Origin) -> Iterator[Found]:
    """Two answers, of which the first was preferred."""
    tools = first(row, "input.tools")
    both = [
        answer(row[name], name, origin) for name in ("preferred_output", "non_preferred_output")
    ]
    yield Interaction(
        PREFERENCE,
        conversation(first(row, "input.messages") or row["input"], "input", origin),
        tuple(both) if all(both) else (),
        origin,
        id=text_id(row.get("id")),
        time=time_of(row.get("time")),
        signals=(Signal("choice", "preferred_output", True, origin, answer=0),),
        columns={"tools": tools} if tools else {},
    )
