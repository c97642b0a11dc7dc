"""What a model said as the message that templates, environments and people read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from strop.text.chat.template import Tools
from strop.text.malformed import why_no_call
from strop.text.speech import Speech
from strop.text.tools import Call
from strop.types import Message

ID = re.compile(r"[A-Za-z0-9]{9}")


@dataclass(frozen=True, slots=True)
class SaidTurn:
    """`SaidTurn({"role": "assistant", "content": None, "tool_calls": [{"id": "call00000", "type":
    "function", "function": {"name": "add", "arguments": {"a": 1}}}]}, (Call("add", {"a": 1},
    "call00000"),))`.

    `malformed` says why something that begins like a call is none; it then stands in the content.
    """

    message: Message
    calls: tuple[Call, ...] = ()
    malformed: str = ""


def message_of(text: str, tools: Tools, *, first: int = 0, thoughts: bool = True) -> SaidTurn:
    """A whole turn of an assistant: its thought (`reasoning_content`), its words, its calls.

    `text` begins with what the prompt had opened of the turn. `first` is how many calls the
    conversation had before: a call for which the syntax writes no id gets `call00000` and so on,
    nine letters and digits as Mistral's templates demand; so does one whose id is of another form,
    or that of another call. Without `thoughts` a thought stays in the content with its marks, for
    templates that do not read `reasoning_content`. Without `tools`
    nothing is a call.
    """
    speech = Speech(tools=tools)
    speech.feed(text)
    speech.end()
    written = speech.written
    calls = _identified(written.calls, first)
    content = written.content
    if not thoughts:
        content = text.removesuffix(written.calling) if calls else text
    message: Message = {"role": "assistant", "content": content}
    if thoughts and written.reasoning is not None:
        message["reasoning_content"] = written.reasoning
    if not calls:
        return SaidTurn(message, malformed=why_no_call(written.calling, tools))
    said = content if content.strip() else None
    return SaidTurn(message | {"content": said, "tool_calls": listed(calls)}, calls)


def _identified(calls: Sequence[Call], first: int) -> tuple[Call, ...]:
    known: set[str] = set()
    found = []
    for place, call in enumerate(calls):
        fits = ID.fullmatch(call.id) and call.id not in known
        known.add(call.id)
        found.append(replace(call, id=call.id if fits else f"call{first + place:05d}"))
    return tuple(found)


def listed(calls: Sequence[Call]) -> list[dict[str, Any]]:
    """Calls in OpenAI's form, their arguments as objects."""
    return [
        {"id": call.id, "type": "function",
         "function": {"name": call.name, "arguments": dict(call.arguments)}}
        for call in calls
    ]  # fmt: skip
