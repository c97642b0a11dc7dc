"""The texts of a record, by their part: what was asked, what was answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, get_args

from strop.data.duplicates import asked
from strop.text.parse import spoken
from strop.types import Document, Message, Record, Task, Text

ANSWERS = ("completion", "chosen", "rejected")
"""The fields of records that hold answers."""


def prompt_text(record: Record) -> str:
    """What a record asks; the whole text of a document."""
    return record.text if isinstance(record, Document) else asked(record.prompt)


def answer_texts(record: Record) -> list[str]:
    """What the assistant says in each answer of a record; a document is one, a task has none."""
    if isinstance(record, Document):
        return [record.text]
    return [spoken(getattr(record, name)) for name in ANSWERS if name in _own(record)]


def imitated_text(record: Record) -> str:
    """The answer that a record is about: the chosen one of a pair; of a task its prompt."""
    return prompt_text(record) if isinstance(record, Task) else answer_texts(record)[0]


def with_texts(record: Record, change: Callable[[str], str]) -> Record:
    """A record with every text of its prompt and answers changed; its columns stay."""
    changed: dict[str, Any] = {n: _changed(getattr(record, n), change) for n in _said(record)}
    return replace(record, **changed)


def with_answers(record: Record, change: Callable[[str], str]) -> Record:
    """A record with the first thing that the assistant says in each answer changed."""
    names = [name for name in ANSWERS if name in _own(record)]
    changed: dict[str, Any] = {n: _first_changed(getattr(record, n), change) for n in names}
    return replace(record, **changed)


def from_row(record: Record, row: Mapping[str, Any]) -> Record:
    """A record of the same kind and place with the values of another row (as `row_of` gives it)."""
    own = {name: row[name] for name in _own(record)}
    columns = {name: value for name, value in row.items() if name not in own}
    return replace(record, **own, columns=columns)


def _own(record: Record) -> tuple[str, ...]:
    return _OWN[type(record)]


_OWN: Mapping[type[Record], tuple[str, ...]] = {
    kind: tuple(f.name for f in fields(kind) if f.name not in ("columns", "origin"))
    for kind in get_args(Record)
}


def _said(record: Record) -> list[str]:
    return [name for name in _own(record) if name != "label"]


def _changed(text: Text, change: Callable[[str], str]) -> Text:
    if isinstance(text, str):
        return change(text)
    return [_with_content(message, change) for message in text]


def _first_changed(text: Text, change: Callable[[str], str]) -> Text:
    if isinstance(text, str):
        return change(text)
    first = next((n for n, m in enumerate(text) if m["role"] == "assistant"), None)
    return [_with_content(m, change) if n == first else m for n, m in enumerate(text)]


def _with_content(message: Message, change: Callable[[str], str]) -> Message:
    content = message.get("content")
    return {**message, "content": change(content)} if isinstance(content, str) else message
