"""Converts messages as people write them to messages as templates expect them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strop.errors import TextError
from strop.types import Message

LEARNT = ("weight", "train")
"""Fields that say whether an assistant turn is supervised; templates do not get them."""


@dataclass(frozen=True, slots=True)
class Form:
    """The form in which a template reads messages: `Form(parts=False, absent=None,
    arguments_as_text=False)`.

    `parts`: content as `[{"type": "text", "text": ...}]`; `absent`: the content of a turn that only
    calls tools; `arguments_as_text`: a call's arguments as JSON text, not as an object.
    """

    parts: bool = False
    absent: str | None = None
    arguments_as_text: bool = False


def is_learnt(turn: Message, where: str) -> bool:
    """Whether an assistant turn is supervised: not with `weight: 0` or `train: false`. Raises
    `TextError` for weights other than 0 and 1."""
    for name in LEARNT:
        if turn.get(name) not in (None, 0, 1):
            raise TextError(
                f"`{name}` of an assistant turn is {turn[name]!r}",
                where=where,
                fix=f"write {'true or false' if name == 'train' else '1 or 0'}, or leave it out",
            )
    return all(turn.get(name) in (None, 1) for name in LEARNT)


def formed(messages: Sequence[Message], form: Form, where: str) -> list[Message]:
    """Messages for the template: absent values dropped, arguments decoded, content in its form."""
    return [_formed(message, form, where) for message in messages]


def _formed(message: Message, form: Form, where: str) -> Message:
    kept = {
        name: value
        for name, value in message.items()
        if name not in LEARNT and (value is not None or name == "content")
    }
    if kept.get("tool_calls"):
        kept["tool_calls"] = [_call(call, form, where) for call in kept["tool_calls"]]
    content = kept.get("content")
    if content is None:
        return {**kept, "content": form.absent}
    if form.parts and isinstance(content, str):
        kept["content"] = [{"type": "text", "text": content}]
    return kept


def _call(call: Mapping[str, Any], form: Form, where: str) -> dict[str, Any]:
    """A call with its arguments as an object (OpenAI sends them as JSON text), or as text if the
    template reads text."""
    inner = call.get("function")
    if isinstance(inner, Mapping):
        return {**call, "function": _with_arguments(inner, form, where)}
    return _with_arguments(call, form, where)


def _with_arguments(function: Mapping[str, Any], form: Form, where: str) -> dict[str, Any]:
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            arguments = None
    if not isinstance(arguments, Mapping):
        raise TextError(
            f"the arguments of the call of {str(function.get('name'))[:60]!r} are no JSON object",
            where=where,
            fix='write them as an object ({"city": "Bern"}) or as its JSON text',
        )
    if form.arguments_as_text:
        return {**function, "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {**function, "arguments": arguments}
