from dataclasses import dataclass
from typing import Any

from strop.text.tools import Call, calls_in
from strop.types import Message


@dataclass(frozen=True, slots=True)
class SaidTurn:
    message: Message
    calls: tuple[Call, ...] = ()
    malformed: str = ""


def message_of(text: str, tools: Any, *, first: int = 0) -> SaidTurn:
    calls = calls_in(text, tools) or []
    if not calls:
        return SaidTurn({"role": "assistant", "content": text})
    content = text.split("<tool_call>")[0]
    made = [
        {
            "id": f"call{first + n:05d}",
            "type": "function",
            "function": {"name": c.name, "arguments": dict(c.arguments)},
        }
        for n, c in enumerate(calls)
    ]
    return SaidTurn({"role": "assistant", "content": content, "tool_calls": made}, tuple(calls))
