"""Normalises chat messages and tools from users' files, or raises an error that names the fault."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from strop.data.json_text import parsed
from strop.errors import DataError
from strop.recipe.loading.yaml_text import short, shown
from strop.types import Message, Origin, Text

ROLES = ("system", "developer", "user", "assistant", "tool", "function")

NICKNAMES = {
    "human": "user",
    "prompter": "user",
    "customer": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "agent": "assistant",
}
"""Roles of other formats. A template would write such a role unchanged, or leave the turn out."""

SHAREGPT = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant",
    "assistant": "assistant", "bing": "assistant", "bard": "assistant", "model": "assistant",
    "system": "system", "observation": "tool", "tool": "tool", "function_call": "assistant",
}  # fmt: skip
"""Roles by the `from` of turns with `from` and `value`."""

TOOLS_FIX = 'write [{"type": "function", "function": {"name": ..., "parameters": {...}}}]'


def text_of(value: Any, name: str, origin: Origin) -> Text:
    """A text or messages; raises `DataError` for anything else, or if it is empty."""
    if isinstance(value, str):
        if not value.strip():
            raise DataError(
                f"`{name}` is empty", where=str(origin), fix="drop the line", kind="empty"
            )
        return value
    return messages_of(value, name, origin)


def answer_of(value: Any, name: str, origin: Origin) -> Text:
    """An answer: text, or messages that begin with an assistant turn (or a tool's result)."""
    answer = text_of(value, name, origin)
    if isinstance(answer, str):
        return answer
    first = answer[0]["role"]
    if first in ("user", "system", "developer"):
        raise DataError(
            f"`{name}` starts with a {first} turn, but it is what the assistant answers",
            where=str(origin),
            fix="put the turns before the answer into `prompt`, or give the whole conversation as "
            "`messages`",
            kind="no_answer",
        )
    if not any(message["role"] == "assistant" for message in answer):
        raise DataError(
            f"`{name}` holds no assistant turn, so there is nothing to learn",
            where=str(origin),
            fix="add the answer or drop the line",
            kind="no_answer",
        )
    return answer


def messages_of(value: Any, name: str, origin: Origin) -> list[Message]:
    """A list of messages. Keys that are null are left out (`without_nulls`), but not `content`;
    parts of text are joined. A conversation may also be JSON text, or an object of lists (`{"role":
    [...], "content": [...]}`, as `datasets` stores some)."""
    listed = _listed(value, name, origin)
    return [_message(one, f"{name}[{number}]", origin) for number, one in enumerate(listed)]


def without_nulls(value: Any) -> Any:
    """A value without its null keys, at every depth.

    Arrow gives every object of a column the keys of all of them: `without_nulls({"city": "Paris",
    "day": None}) == {"city": "Paris"}`. An intended null cannot be distinguished from these; nulls
    in lists stay.
    """
    if isinstance(value, Mapping):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [without_nulls(one) for one in value]
    return value


def _listed(value: Any, name: str, origin: Origin) -> list[Any]:
    if isinstance(value, str) and name == "messages":
        if not value.lstrip().startswith("["):
            raise DataError(
                f"`{name}` is one text, not a list of messages",
                where=str(origin),
                fix="give `prompt` and `completion`, or a list of turns",
                kind="messages",
            )
        value = parsed(value, f"{origin}: `{name}`", fix="write the list as JSON")
    if isinstance(value, Mapping) and isinstance(value.get("role"), list):
        value = _turned(value, name, origin)
    if isinstance(value, Mapping) and "role" in value:
        raise DataError(
            f"`{name}` is a single message",
            where=str(origin),
            fix="put it into a list: [{...}]",
            kind="messages",
        )
    if value == []:
        raise DataError(
            f"`{name}` is an empty list",
            where=str(origin),
            fix="add the turns or drop the line",
            kind="empty",
        )
    if not isinstance(value, list):
        raise DataError(
            f"`{name}` is neither text nor a list of messages (it is {shown(value)})",
            where=str(origin),
            fix='use a string or [{"role": "user", "content": "..."}]',
            kind="messages",
        )
    return value


def _turned(columns: Mapping[str, Any], name: str, origin: Origin) -> list[dict[str, Any]]:
    lengths = {len(column) if isinstance(column, list) else -1 for column in columns.values()}
    if len(lengths) > 1:
        raise DataError(
            f"`{name}` has a list of roles, but not a list as long for every key",
            where=str(origin),
            fix="write one object a message",
            kind="messages",
        )
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _message(value: Any, place: str, origin: Origin) -> Message:
    if isinstance(value, Mapping) and value.get("role") is None and "from" in value:
        value = _from_sharegpt(value, place, origin)
    if not isinstance(value, Mapping) or value.get("role") is None:
        said = "" if isinstance(value, Mapping) else f" (it is {shown(value)})"
        raise DataError(
            f"`{place}` has no role{said}",
            where=str(origin),
            fix='write each message as {"role": ..., "content": ...}',
            kind="role",
        )
    _expect_role(value["role"], place, origin)
    message = {
        key: without_nulls(one)
        for key, one in value.items()
        if key == "content" or (one is not None and (key, one) != ("tool_calls", []))
    }
    if isinstance(message.get("content"), list):
        message["content"] = _joined(message["content"], place, origin)
    _expect_said(message, place, origin)
    return message


def _from_sharegpt(value: Mapping[str, Any], place: str, origin: Origin) -> dict[str, Any]:
    """`{"from": "human", "value": "Hi"}` as `{"role": "user", "content": "Hi"}`.

    The value of a `function_call` is the call as JSON: `{"name": ..., "arguments": {...}}`, or a
    list of such calls.
    """
    who = value["from"]
    role = SHAREGPT.get(who.strip().casefold()) if isinstance(who, str) else None
    if role is None:
        raise DataError(
            f"`{place}` is from {shown(who)}",
            where=str(origin),
            fix=f"write one of {', '.join(SHAREGPT)}",
            kind="role",
        )
    others = {key: one for key, one in value.items() if key not in ("from", "value", "role")}
    if who.strip().casefold() != "function_call":
        return {"role": role, "content": value.get("value"), **others}
    fix = 'write {"name": ..., "arguments": {...}} as JSON text'
    said = value.get("value")
    called = parsed(said, f"{origin}: `{place}`", fix=fix) if isinstance(said, str) else said
    calls = called if isinstance(called, list) else [called]
    if not all(isinstance(call, Mapping) and isinstance(call.get("name"), str) for call in calls):
        raise DataError(f"`{place}` is no function call with a name", where=str(origin), fix=fix,
                        kind="tool_calls")  # fmt: skip
    listed = [{"type": "function", "function": call} for call in calls]
    return {"role": role, "content": None, "tool_calls": listed, **others}


def _expect_role(role: Any, place: str, origin: Origin) -> None:
    if not isinstance(role, str):
        raise DataError(
            f"the role of `{place}` is {shown(role)}, not a text",
            where=str(origin),
            fix=f"use one of {', '.join(ROLES)}",
            kind="role",
        )
    if role in ROLES:
        return
    folded = role.strip().casefold()
    near = difflib.get_close_matches(folded, ROLES, 1, 0.85)
    meant = NICKNAMES.get(folded) or (near[0] if near else None)
    if meant is not None:  # a role of the template's own is the template's business
        raise DataError(
            f"the role of `{place}` is {shown(role)}",
            where=str(origin),
            fix=f"write {meant!r}",
            kind="role",
        )


def _joined(parts: list[Any], place: str, origin: Origin) -> str:
    """Parts of text joined into one text, as templates would render them."""
    texts = []
    for part in parts:
        if not isinstance(part, Mapping):
            raise _no_text(place, origin)
        kind = part.get("type", "text" if "text" in part else None)
        if kind != "text":
            raise DataError(
                f"the content of `{place}` holds a part of type {shown(kind)}",
                where=str(origin),
                fix="only parts of type 'text' are read: drop the line or the part",
                kind="content_part",
            )
        if not isinstance(part.get("text"), str):
            raise _no_text(place, origin)
        texts.append(part["text"])
    return "".join(texts)


def _expect_said(message: Message, place: str, origin: Origin) -> None:
    content, calls = message.get("content"), message.get("tool_calls")
    if content is not None and not isinstance(content, str):
        raise _no_text(place, origin)
    if calls and not (isinstance(calls, list) and all(isinstance(c, Mapping) for c in calls)):
        raise DataError(
            f"the tool_calls of `{short(place)}` are no list of objects",
            where=str(origin),
            fix='write [{"function": {"name": ..., "arguments": ...}}]',
            kind="tool_calls",
        )
    if not calls and not (content or "").strip():
        raise DataError(f"`{place}` is empty", where=str(origin), fix="drop the line", kind="empty")


def _no_text(place: str, origin: Origin) -> DataError:
    return DataError(
        f"the content of `{place}` is no text",
        where=str(origin),
        fix="write it as a string (an object or a list as JSON text)",
        kind="content",
    )


def tools_of(value: Any, name: str, origin: Origin) -> list[dict[str, Any]]:
    """A list of tools, or the JSON text of one, as a list of objects; `[]` if there are none.

    A tool is OpenAI's `{"type": "function", "function": {"name": ...}}` or the bare
    `{"name": ..., "parameters": ...}`. Keys that are null in a list are left out: Arrow adds them.
    A text keeps its nulls.
    """
    if value is None or value in ("", []):
        return []
    is_text = isinstance(value, str)
    listed = (
        parsed(value, f"{origin}: `{name}`", fix=TOOLS_FIX) if is_text else without_nulls(value)
    )
    if not isinstance(listed, list):
        raise DataError(
            f"`{name}` is no list of tools (it is {shown(listed)})",
            where=str(origin),
            fix=f"{TOOLS_FIX}, or its JSON text",
            kind="tools",
        )
    for number, tool in enumerate(listed):
        _expect_tool(tool, f"{name}[{number}]", origin)
    return listed


def _expect_tool(tool: Any, place: str, origin: Origin) -> None:
    inner = tool.get("function", tool) if isinstance(tool, Mapping) else None
    named = inner.get("name") if isinstance(inner, Mapping) else None
    if not isinstance(named, str) or not named:
        raise DataError(
            f"`{place}` is no function with a name (it is {shown(tool)})",
            where=str(origin),
            fix=TOOLS_FIX,
            kind="tools",
        )
