"""Prompts, answers and times as exports write them -> messages and times."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from strop.data.messages import messages_of
from strop.errors import DataError
from strop.types import Message, Origin

ROLES = {
    "human": "user",
    "customer": "user",
    "end_user": "user",
    "requester": "user",
    "ai": "assistant",
    "agent": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "aimessage": "assistant",
    "aimessagechunk": "assistant",
    "humanmessage": "user",
    "systemmessage": "system",
    "toolmessage": "tool",
}
"""What exports call the roles, LangChain's classes among them."""

KEPT = ("content", "tool_calls", "tool_call_id", "name", "reasoning_content")
"""Keys of a message that a chat template may render; an API adds others to its answers."""

TEXT_PARTS = ("text", "input_text", "output_text")
"""Types of content parts that are text; all others are refused by name."""

HOLDERS = ("messages", "output", "outputs", "answer", "response", "completion", "content", "text",
           "result", "input", "inputs", "question", "query", "prompt", "message")  # fmt: skip
"""Keys under which an application's own object holds what was asked or said."""

_WRAPS = {"messages", "choices", "generations"}

DEEPEST_HOLDER = 6
"""Objects that may stand around what was said."""


def conversation(value: Any, name: str, origin: Origin) -> list[Message]:
    """What was asked, as messages: a text is a user's turn. Raises `DataError`."""
    raw = _unpacked(value)
    if isinstance(raw, str):
        raw = [{"role": "user", "content": raw}]
    elif isinstance(raw, Mapping):
        raw = [raw]
    return _checked(raw, name, origin)


def answer(value: Any, name: str, origin: Origin) -> list[Message]:
    """What was said: the turns behind the last one of a user, `[]` where nothing was said.

    A text is the assistant's turn. Raises `DataError` for what is neither text nor messages.
    """
    raw = _unpacked(value)
    if raw is None or raw in ("", [], {}) or (isinstance(raw, str) and not raw.strip()):
        return []
    if isinstance(raw, str):
        raw = [{"role": "assistant", "content": raw}]
    elif isinstance(raw, Mapping):
        raw = [{"role": "assistant", **raw}]
    if not isinstance(raw, list):
        raise _neither(raw, name, origin)
    spoken = [one for one in map(plain_message, raw) if not _says_nothing(one)]
    asked = [n for n, one in enumerate(spoken) if one.get("role") not in ("assistant", "tool")]
    spoken = spoken[asked[-1] + 1 :] if asked else spoken
    if not any(one.get("role") == "assistant" for one in spoken):
        return []
    return messages_of(spoken, name, origin)


def _checked(raw: Any, name: str, origin: Origin) -> list[Message]:
    if not isinstance(raw, list):
        raise _neither(raw, name, origin)
    plain = [plain_message(one) for one in raw]
    kept = [one for one in plain if one.get("role") != "system" or not _says_nothing(one)]
    return messages_of(kept, name, origin)


def _neither(raw: Any, name: str, origin: Origin) -> DataError:
    return DataError(
        f"`{name}` is {what(raw)}, neither text nor messages",
        where=str(origin),
        fix="export what was asked and said as text or messages",
        kind="messages",
    )


def what(value: Any) -> str:
    """What a value is, for a message; never the value, which may be a person's words."""
    kinds = ((bool, "true or false"), (int | float, "a number"), (str, "a text"), (list, "a list"))
    named = next((name for kind, name in kinds if isinstance(value, kind)), "an object")
    return "null" if value is None else named


def _says_nothing(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    blank = content is None or (isinstance(content, str) and not content.strip()) or content == []
    return blank and not message.get("tool_calls")


def plain_message(value: Any) -> dict[str, Any]:
    """A message of an API or a framework as a plain one; what is none is left as it is found.

    `plain_message({"type": "human", "content": "Hi"}) == {"role": "user", "content": "Hi"}`, and
    the same of LangChain's `{"kwargs": {...}, "id": [..., "HumanMessage"]}`.
    """
    if not isinstance(value, Mapping):
        return {"content": value}
    inner = value.get("kwargs", value.get("data"))
    if isinstance(inner, Mapping):
        named = value["id"][-1] if isinstance(value.get("id"), list) and value["id"] else None
        value = {"type": named or value.get("type"), **inner}
    role = value.get("role") or value.get("type") or value.get("from")
    folded = str(role).casefold() if role is not None else None
    message: dict[str, Any] = {"role": ROLES.get(folded, folded)} if folded is not None else {}
    message |= {key: value[key] for key in KEPT if value.get(key) is not None}
    if "content" not in message and isinstance(value.get("refusal"), str):
        message["content"] = value["refusal"]
    if isinstance(message.get("content"), list):
        message["content"] = [_text_part(part) for part in message["content"]]
    if isinstance(message.get("tool_calls"), list):
        message["tool_calls"] = [_call(call) for call in message["tool_calls"]]
    message.setdefault("content", None)
    return message


def _text_part(part: Any) -> Any:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if isinstance(part, Mapping) and part.get("type") in TEXT_PARTS:
        return {"type": "text", "text": part.get("text")}
    return part


def _call(call: Any) -> Any:
    """LangChain's `{"name", "args", "id"}` as the call of a chat template."""
    if not isinstance(call, Mapping) or "function" in call or "args" not in call:
        return call
    named = {"name": call.get("name"), "arguments": call["args"]}
    return {"id": call.get("id"), "type": "function", "function": named}


def _unpacked(value: Any) -> Any:
    """Text or a list of messages out of the objects that hold it, and out of JSON text of messages.

    An object of an application's own that holds neither is what was said: its JSON text.
    """
    for _ in range(DEEPEST_HOLDER):
        if isinstance(value, str):
            inside = _messages_inside(value)
            if inside is None:
                return value
            value = inside
        elif isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
            value = value[0]
        elif isinstance(value, Mapping) and not is_message(value):
            inside = _held(value)
            if inside is None:
                return json.dumps(value, ensure_ascii=False) if value else None
            value = inside
        else:
            return value
    return value


def is_message(value: Mapping[str, Any]) -> bool:
    """Whether an object is one message, not an object that holds some."""
    return (
        "role" in value
        or isinstance(value.get("kwargs"), Mapping)
        or str(value.get("type", "")).casefold() in ROLES
        or "tool_calls" in value
    )


def _held(value: Mapping[str, Any]) -> Any:
    choices = value.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        return choices[0].get("message", choices[0].get("text"))
    generations = value.get("generations")
    while isinstance(generations, list) and generations:
        generations = generations[0]
    if isinstance(generations, Mapping):
        return generations.get("message", generations.get("text"))
    for key in HOLDERS:
        if value.get(key) not in (None, "", [], {}):
            return value[key]
    return None


def _messages_inside(value: str) -> Any:
    """The messages, or the API's answer, that a text is the JSON of; `None` for any other text: an
    answer may be JSON by itself."""
    text = value.strip()
    if not text or (text[0], text[-1]) not in (("{", "}"), ("[", "]")):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    each = found if isinstance(found, list) else [found]
    each = each[0] if len(each) == 1 and isinstance(each[0], list) else each
    chat = all(
        isinstance(one, Mapping) and (is_message(one) or _WRAPS & one.keys()) for one in each
    )
    return found if each and chat else None


def objects(value: Any) -> Iterator[Mapping[str, Any]]:
    """The objects of a list, also of the JSON text of one; nothing where it is no list."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return
    if isinstance(value, list):
        yield from (one for one in value if isinstance(one, Mapping))


def mapping(value: Any) -> Mapping[str, Any]:
    """An object; an empty one in the place of anything else."""
    return value if isinstance(value, Mapping) else {}


def first(row: Mapping[str, Any], *paths: str) -> Any:
    """The first of these dotted paths that a row has a value at: `first(row, "id", "info.id")`."""
    for path in paths:
        value: Any = row
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            return value
    return None


def text_id(value: Any) -> str | None:
    """An id as text; `None` for what is none."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value) or None


_UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
"""From which number on a time counts in nano-, micro- or milliseconds, and how many a second."""


def time_of(value: Any) -> datetime | None:
    """A time out of ISO 8601 text or seconds, milli-, micro- or nanoseconds since 1970, in UTC.

    `time_of("2026-01-05T10:00:00Z") == time_of(1767607200000)`; `None` for what is no time.
    """
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, str):
        digits = value.strip().replace(".", "", 1)
        if not (digits.isascii() and digits.isdigit()):
            return _iso(value)
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e20:
        return None
    scale = next((scale for most, scale in _UNITS if value >= most), 1.0)
    try:
        return datetime.fromtimestamp(value / scale, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _iso(value: str) -> datetime | None:
    try:
        return time_of(datetime.fromisoformat(value.strip()))
    except ValueError:
        return None
