"""A recipe's records, read as a run would read them, as the rows that other systems read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strop.advise.elsewhere.carried import Keys, Row
from strop.data.records import PARSERS, row_of
from strop.data.sources import read
from strop.errors import DataError
from strop.recipe.train.methods import Recipe, method_of
from strop.text.script import as_messages
from strop.train.preflight.sources import by_role
from strop.types import Message, Record, RecordKind, Text

TEXTS: Mapping[RecordKind, Mapping[str, str]] = {
    "document": {},
    "demonstration": {"prompt": "user", "completion": "assistant"},
    "preference": {"prompt": "user", "chosen": "assistant", "rejected": "assistant"},
    "feedback": {"prompt": "user", "completion": "assistant"},
    "task": {"prompt": "user"},
}
"""Columns that hold a text or messages, and who speaks where it is a text."""


@dataclass(frozen=True, slots=True)
class Records:
    """A method's own records and the held-out ones as rows in strop's form.

    In a `chat` every prompt and answer is a list of messages, elsewhere each is a text. `columns`
    are the further columns that a row keeps: `tools`, and all of a task's.
    """

    own: tuple[Row, ...]
    held_out: tuple[Row, ...]
    kind: RecordKind
    chat: bool

    def __len__(self) -> int:
        return len(self.own)

    @property
    def every(self) -> tuple[Row, ...]:
        return self.own + self.held_out

    @property
    def several_turns(self) -> bool:
        """Whether an answer has turns beside the assistant's, or several of its own."""
        return self.chat and any(len(row.get("completion", ())) > 1 for row in self.every)

    @property
    def tools(self) -> bool:
        return any("tools" in row for row in self.every)


def records_of(keys: Keys) -> Records:
    """All records of a recipe; its data keys are carried over by reading them.

    Raises `DataError` for records of which some hold texts and others messages: no other system
    reads both from one file.
    """
    recipe: Recipe = keys.recipe
    kind = method_of(recipe).records
    own = list(read(_own_sources(keys, recipe, kind), PARSERS[kind]))
    held_out: list[Record] = []
    if recipe.eval is not None and kind != "task":
        keys.take("eval.data")
        held_out = list(read(recipe.eval.data, PARSERS[kind], held_out=True))
    chats = {_is_chat(record, kind) for record in (*own, *held_out)}
    if len(chats) > 1:
        raise DataError(
            "some records hold texts and others messages, and no other system reads both from one "
            "file",
            where=recipe.data[0].name,
            fix="write all of them as messages, or all as texts",
        )
    chat = chats == {True}
    if chat and any(_unlearnt(record) for record in (*own, *held_out)):
        keys.say("turns with `weight` 0 are not learnt here, and there they are")
    margin = keys.at("objective.margin")
    return Records(
        tuple(_row(record, kind, chat, margin) for record in own),
        tuple(_row(record, kind, chat, margin) for record in held_out),
        kind,
        chat,
    )


def _own_sources(keys: Keys, recipe: Recipe, kind: RecordKind) -> tuple[Any, ...]:
    roles = by_role(recipe, kind)
    replayed = [source for source, _ in roles.replay]
    keys.take("data")
    for number, source in enumerate(recipe.data):
        if source in replayed:
            keys.lose(f"data.{number}", "replay beside a method's own records is strop's alone")
        elif source.weight is not None:
            why = "all records of the method stand in one file there, each once"
            keys.lose(f"data.{number}.weight", why)
    return roles.own


def _is_chat(record: Record, kind: RecordKind) -> bool:
    return any(isinstance(getattr(record, name), list) for name in TEXTS[kind])


def _unlearnt(record: Record) -> bool:
    turns = getattr(record, "completion", ())
    return any(isinstance(turn, dict) and turn.get("weight") == 0 for turn in turns)


def _row(record: Record, kind: RecordKind, chat: bool, margin: str | None) -> Row:
    row = row_of(record)
    if kind != "task":
        kept = {"text", "label", "tools", *TEXTS[kind]}
        added = {"margin": float(row[margin])} if margin else {}
        row = {name: value for name, value in row.items() if name in kept} | added
    said = {name: as_messages(row[name], role=who) for name, who in TEXTS[kind].items()}
    return {**row, **said} if chat else row


def lose_tools(keys: Keys, records: Records) -> None:
    """Say that the system does not show a model the tools that records offer."""
    if records.tools:
        keys.say("`tools` of the records are not written into the prompts there: the model does "
                 "not see them")  # fmt: skip


def conversation(row: Row) -> list[Message]:
    """A demonstration or a thumb as one list of messages."""
    return [*row["prompt"], *row["completion"]]


def expect_chat(records: Records, system: str) -> None:
    """Raise `DataError` for records of plain text."""
    if not records.chat and records.kind != "document":
        raise DataError(
            f"the records are plain texts, and {system} reads this kind as messages only",
            fix="write prompts and answers as messages, or export to trl, which reads texts too",
        )


def expect_one_answer(records: Records, system: str) -> None:
    """Raise `DataError` for a preferred or judged answer of several messages."""
    names = [name for name in TEXTS[records.kind] if name != "prompt"]
    for row in records.every if records.chat else ():
        if any(len(row[name]) != 1 for name in names):
            raise DataError(
                f"an answer has several messages, and {system} reads one for each answer",
                fix="put the turns before the last one into `prompt`, or export to trl",
            )


def json_columns(row: Row) -> str:
    """A task's further columns as JSON, for a system that hands a reward one text."""
    columns = {name: value for name, value in row.items() if name != "prompt"}
    return json.dumps(columns, ensure_ascii=False, sort_keys=True)


def in_messages(records: Sequence[Row]) -> Iterator[Row]:
    """`{"messages"}` of demonstrations, with their tools."""
    for row in records:
        tools = {"tools": row["tools"]} if "tools" in row else {}
        yield {"messages": conversation(row), **tools}


def said(text: Text) -> str:
    """The words of an answer of one message: `said([{"role": "assistant", "content": "4"}])`."""
    return text if isinstance(text, str) else str(text[-1]["content"] or "")
