"""Finds fields of messages that a chat template silently leaves out.

A template that does not know `tool_calls` renders a turn that only calls tools as an empty answer,
and one without a `developer` role leaves that message out. So each field of each message is
replaced by a test word in turn, and if the word is missing in the output, the record is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from strop.errors import TextError
from strop.text.chat.messages import LEARNT, formed
from strop.text.chat.template import SENTINEL, TEMPLATE_ERRORS, ChatTemplate, Tools
from strop.types import Message

UNTOLD = frozenset({"role", "id", "type", "index", "tool_call_id", *LEARNT})
"""Fields that link messages or steer training: a template may leave them out."""


class _Trial(NamedTuple):
    """A conversation in which test words replace one field of one message."""

    field: str
    messages: Sequence[Message]
    tools: Tools
    words: tuple[str, ...]


def expect_read(
    template: ChatTemplate, messages: Sequence[Message], tools: Tools, where: str
) -> None:
    """Raise `TextError` naming the first field of these messages that the template leaves out.

    An assistant turn is tested as the last one, because a template may drop older thoughts on
    purpose. Messages with the same role, fields and neighbours are tested once.
    """
    if tools:
        _expect_tools(template, messages, tools, where)
    roles = [None, *(message["role"] for message in messages), None]
    for number, message in enumerate(messages):
        fields = tuple(sorted(name for name, value in message.items() if value is not None))
        spoken = message["role"] == "assistant"
        shape = (fields, number == 0, *roles[number : number + (2 if spoken else 3)], bool(tools))
        if shape in template.known_to_read:
            continue
        for trial in _trials(messages, number, tools):
            if not _comes_out(template, trial):
                raise _unread(f"`{trial.field}` of a message of role {message['role']!r}", where)
        template.known_to_read.add(shape)


def _expect_tools(
    template: ChatTemplate, messages: Sequence[Message], tools: Sequence[Any], where: str
) -> None:
    if "tools" in template.known_to_read:
        return
    inner = tools[0].get("function")
    offered = {**inner, "name": SENTINEL} if isinstance(inner, Mapping) else {"name": SENTINEL}
    tool = {**tools[0], "function": offered} if inner else {**tools[0], **offered}
    if not _comes_out(template, _Trial("tools", messages, [tool, *tools[1:]], (SENTINEL,))):
        raise _unread("the column `tools`", where)
    template.known_to_read.add("tools")


def _unread(what: str, where: str) -> TextError:
    return TextError(
        f"the tokenizer's chat template leaves out {what}, so the model would never see it",
        where=where,
        fix="use a template that writes it (`chat_template` in the recipe), or drop it from the "
        "data",
    )


def _trials(messages: Sequence[Message], number: int, tools: Tools) -> Iterator[_Trial]:
    message = messages[number]
    spoken = message["role"] == "assistant"
    rest = [] if spoken else messages[number + 1 :]
    for name, value in message.items():
        if value is None or value == "" or name in UNTOLD or _names_a_tool(message, name):
            continue
        if name == "tool_calls":
            if not value:
                continue
            calls, words = _marked(value)
            changed, marks = {**message, name: calls}, words
        else:
            changed, marks = {**message, name: SENTINEL}, (SENTINEL,)
        yield _Trial(name, [*messages[:number], changed, *rest], tools, marks)


def _names_a_tool(message: Message, name: str) -> bool:
    return name == "name" and message["role"] == "tool"


def _marked(calls: Sequence[Mapping[str, Any]]) -> tuple[list[Any], tuple[str, ...]]:
    """Calls with test words as names and arguments."""
    marked: list[Any] = []
    words: list[str] = []
    for number, call in enumerate(calls):
        name, value = f"{SENTINEL}F{number}", f"{SENTINEL}X{number}"
        function = {"name": name, "arguments": {"x": value}}
        inner = call.get("function")
        marked.append({**call, "function": function} if inner else {**call, **function})
        words += [name, value]
    return marked, tuple(words)


def _comes_out(template: ChatTemplate, trial: _Trial) -> bool:
    """Whether the test words are in the text. A conversation that cannot be rendered passes here,
    because rendering it later reports the error."""
    generation = trial.messages[-1]["role"] != "assistant"
    try:
        text = template.render(
            formed(trial.messages, template.form, ""), trial.tools, generation=generation
        )
    except TEMPLATE_ERRORS:
        return True
    return all(word in text for word in trial.words)
