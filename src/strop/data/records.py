"""Rows of a data file -> typed records; every refusal names file, line and fix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from strop.errors import DataError
from strop.recipe.yaml_text import short, shown
from strop.types import (
    Demonstration,
    Document,
    Feedback,
    Message,
    Origin,
    Preference,
    Record,
    Task,
    Text,
)

Row = Mapping[str, Any]
RecordT = TypeVar("RecordT")

FORMS: dict[str, tuple[tuple[str, ...], ...]] = {
    "document": (("text",),),
    "preference": (
        ("prompt", "chosen", "rejected"),
        ("chosen", "rejected"),
        ("input", "preferred_output", "non_preferred_output"),
    ),
    "feedback": (("prompt", "completion", "label"),),
    "demonstration": (("prompt", "completion"), ("messages",)),
    "task": (("prompt",),),
}
"""Columns of each kind of record, the most demanding first."""

USED_BY = {
    "document": "method cpt",
    "preference": "preference methods (dpo and its family, reward_model)",
    "feedback": "methods kto and apo_zero_unpaired",
    "demonstration": "methods sft and dft",
    "task": "methods that learn from rewards (grpo and its family) and evals",
}


def document(row: Row, origin: Origin) -> Document:
    """`{"text"}`."""
    _columns("document", row, origin)
    text = row["text"]
    if not isinstance(text, str) or not text.strip():
        raise DataError("`text` is empty or not a string", where=str(origin), fix="drop the line")
    return Document(text, origin)


def demonstration(row: Row, origin: Origin) -> Demonstration:
    """`{"prompt", "completion"}` or `{"messages"}`."""
    form = _columns("demonstration", row, origin)
    columns = {name: value for name, value in row.items() if name not in form}
    if form == ("messages",):
        before, spoken = _split_conversation(_messages(row["messages"], "messages", origin))
        if not spoken:
            raise DataError(
                "`messages` holds no assistant turn, so there is nothing to learn",
                where=str(origin),
                fix="add the assistant's answer or drop the line",
            )
        return Demonstration(before, spoken, columns, origin)
    if row.get("label") is False:
        raise DataError(
            "the answer has `label` false: it was disliked, and would be learnt by heart",
            where=str(origin),
            fix="use method kto, or keep only the liked answers",
        )
    prompt = text_of(row["prompt"], "prompt", origin)
    return Demonstration(prompt, text_of(row["completion"], "completion", origin), columns, origin)


def preference(row: Row, origin: Origin) -> Preference:
    """`{"prompt", "chosen", "rejected"}`, the same with the prompt inside, or OpenAI's form."""
    form = _columns("preference", row, origin)
    columns = {name: value for name, value in row.items() if name not in form}
    if form[0] == "input":
        given = row["input"]
        prompt: Text = text_of(
            given.get("messages") if isinstance(given, Mapping) else given, "input", origin
        )
        chosen = text_of(row["preferred_output"], "preferred_output", origin)
        rejected = text_of(row["non_preferred_output"], "non_preferred_output", origin)
    else:
        chosen = text_of(row["chosen"], "chosen", origin)
        rejected = text_of(row["rejected"], "rejected", origin)
        prompt, chosen, rejected = _prompt_of_pair(row.get("prompt"), chosen, rejected, origin)
    if chosen == rejected:
        raise DataError(
            "chosen equals rejected, so the pair says nothing",
            where=str(origin),
            fix="drop the line",
        )
    return Preference(prompt, chosen, rejected, columns, origin)


def feedback(row: Row, origin: Origin) -> Feedback:
    """`{"prompt", "completion", "label"}`, label a bool."""
    form = _columns("feedback", row, origin)
    columns = {name: value for name, value in row.items() if name not in form}
    if not isinstance(row["label"], bool):
        raise DataError(
            f"`label` is {shown(row['label'])}", where=str(origin), fix="use true or false"
        )
    prompt = text_of(row["prompt"], "prompt", origin)
    completion = text_of(row["completion"], "completion", origin)
    return Feedback(prompt, completion, row["label"], columns, origin)


def task(row: Row, origin: Origin) -> Task:
    """`{"prompt", ...columns}`; the columns go to the rewards."""
    form = _columns("task", row, origin)
    columns = {name: value for name, value in row.items() if name not in form}
    return Task(text_of(row["prompt"], "prompt", origin), columns, origin)


PARSERS: dict[str, Callable[[Row, Origin], Record]] = {
    "document": document,
    "demonstration": demonstration,
    "preference": preference,
    "feedback": feedback,
    "task": task,
}


def fits(kind: str, row: Row) -> bool:
    """Whether a row has all columns of some form of this kind."""
    return any(all(row.get(name) is not None for name in form) for form in FORMS[kind])


def _columns(kind: str, row: Row, origin: Origin) -> tuple[str, ...]:
    """The first form of this kind whose columns are all present."""
    for form in FORMS[kind]:
        if all(row.get(name) is not None for name in form):
            return form
    wanted = " or ".join("{" + ", ".join(form) + "}" for form in FORMS[kind])
    looks = next(
        (other for other in FORMS if other != kind and fits(other, row)),
        None,
    )
    advice = f"; a row like this fits {USED_BY[looks]}" if looks else ""
    raise DataError(
        f"wrong columns for {USED_BY[kind]}: found {{{columns_in(row)}}}",
        where=str(origin),
        fix=f"give every line {wanted}{advice}",
    )


def columns_in(row: Row) -> str:
    """Names of columns as a message shows them: `prompt, answer`."""
    names = [short(str(name)) for name in row]
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")


def text_of(value: Any, name: str, origin: Origin) -> Text:
    """A text or messages; raises `DataError` for what is neither, or says nothing."""
    if isinstance(value, str):
        if not value.strip():
            raise DataError(f"`{name}` is empty", where=str(origin), fix="drop the line")
        return value
    return _messages(value, name, origin)


def _messages(value: Any, name: str, origin: Origin) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise DataError(
            f"`{name}` is neither text nor a list of messages",
            where=str(origin),
            fix='use a string or [{"role": "user", "content": "..."}]',
        )
    for number, message in enumerate(value):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise DataError(
                f"`{name}[{number}]` has no role",
                where=str(origin),
                fix='write each message as {"role": ..., "content": ...}',
            )
        _expect_said(message, f"{name}[{number}]", origin)
    return [dict(message) for message in value]


def _expect_said(message: Mapping[str, Any], place: str, origin: Origin) -> None:
    content, calls = message.get("content"), message.get("tool_calls")
    if content is not None and not isinstance(content, str):
        raise DataError(f"the content of `{place}` is no text", where=str(origin),
                        fix="write it as a string; only text is read")  # fmt: skip
    if calls and not (isinstance(calls, list) and all(isinstance(c, Mapping) for c in calls)):
        raise DataError(f"the tool_calls of `{place}` are no list of objects", where=str(origin),
                        fix='write [{"function": {"name": ..., "arguments": ...}}]')  # fmt: skip
    if not calls and not (content or "").strip():
        raise DataError(f"`{place}` is empty", where=str(origin), fix="drop the line")


def _split_conversation(messages: list[Message]) -> tuple[list[Message], list[Message]]:
    """(up to the first assistant turn, from there on)."""
    spoken = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    first = spoken[0] if spoken else len(messages)
    return messages[:first], messages[first:]


def _prompt_of_pair(
    given: Any, chosen: Text, rejected: Text, origin: Origin
) -> tuple[Text, Text, Text]:
    """Pull the shared conversation out of answers that repeat it."""
    whole = isinstance(chosen, list) and chosen[0]["role"] != "assistant"
    if not whole:
        if given is None:
            raise DataError(
                "the pair has no prompt",
                where=str(origin),
                fix="add `prompt`, or put the whole conversation into chosen and rejected",
            )
        return text_of(given, "prompt", origin), chosen, rejected
    assert isinstance(chosen, list)
    shared = chosen[:-1]
    if not isinstance(rejected, list) or rejected[:-1] != shared or len(rejected) < 2:
        raise DataError(
            "chosen and rejected hold different conversations before the last turn",
            where=str(origin),
            fix="make all turns but the last identical, or give `prompt` apart",
        )
    return shared, chosen[-1:], rejected[-1:]
