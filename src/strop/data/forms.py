"""Converts rows of common formats to rows with strop's own columns.

A row in strop's own form (docs/data.md) is returned unchanged. Every other form is an entry of
`FORMS`, the most specific first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from strop.errors import DataError
from strop.recipe.loading.yaml_text import shown
from strop.types import Message, Origin, RecordKind

Row = Mapping[str, Any]
Convert = Callable[[Row, RecordKind, Origin], Row]

ANSWER: Mapping[RecordKind, str] = {"demonstration": "completion", "feedback": "completion"}
"""strop's name for the single answer of a record; a task keeps the column's own name."""

_SPEAKERS = {"Human": "user", "User": "user", "Assistant": "assistant", "System": "system"}
_TURN = re.compile(rf"(?:\A\s*|\n\n[ \t]*)({'|'.join(_SPEAKERS)}):")

LABELS: Mapping[str, bool] = {
    "true": True, "1": True, "up": True, "thumbs_up": True, "thumbs-up": True,
    "false": False, "0": False, "-1": False, "down": False, "thumbs_down": False,
    "thumbs-down": False,
}  # fmt: skip
"""Values of a thumb's label."""


@dataclass(frozen=True, slots=True)
class Form:
    """How to recognise and convert rows of one format: `Form("alpaca", is_alpaca, from_alpaca)`."""

    name: str
    fits: Callable[[Row], bool]
    convert: Convert


def own_columns(row: Row, kind: RecordKind, origin: Origin) -> Row:
    """A row with strop's columns, as a record of this kind.

    `own_columns({"instruction": "Solve", "input": "2x = 6", "output": "3"}, "demonstration", o)` is
    `{"prompt": [{"role": "user", "content": "Solve\\n\\n2x = 6"}], "completion": [...]}`. Raises
    `DataError` if the columns of a format contradict each other.
    """
    form = form_of(row)
    return row if form is None else form.convert(row, kind, origin)


def form_of(row: Row) -> Form | None:
    """The other format of a row, if it has one."""
    return next((form for form in FORMS if form.fits(row)), None)


def form_name(row: Row) -> str:
    """The name of a row's format: `"alpaca"`, or strop's columns: `"prompt, completion"`."""
    form = form_of(row)
    if form is not None:
        return form.name
    own = [name for name in OWN if row.get(name) is not None]
    return ", ".join(own) or "unknown columns"


OWN = ("text", "messages", "prompt", "completion", "chosen", "rejected", "label", "input",
       "preferred_output", "non_preferred_output")  # fmt: skip
"""strop's own columns, and those of OpenAI's preference rows, which `records` reads."""


def label_of(value: Any, origin: Origin) -> bool:
    """A thumb's label: true or false, 1 or 0, "up" or "down"; anything else raises `DataError`."""
    if isinstance(value, bool):
        return value
    said = f"{value:g}" if isinstance(value, int | float) else value
    meant = LABELS.get(said.strip().casefold()) if isinstance(said, str) else None
    if meant is None:
        raise DataError(
            f"`label` is {shown(value)}",
            where=str(origin),
            fix='use true or false (1 or 0 and "up" or "down" are read, too)',
            kind="label",
        )
    return meant


def _is_alpaca(row: Row) -> bool:
    return isinstance(row.get("instruction"), str) and row.get("prompt") is None


def _from_alpaca(row: Row, kind: RecordKind, origin: Origin) -> Row:
    """`instruction`, `input`, `output`, with `history`, `system` and `kto_tag` if present.

    Taori et al. 2023; the further columns are those that trainers have added.
    """
    _expect_text(row, ("input", "output"), origin)
    asked = row["instruction"]
    if (more := row.get("input") or "").strip():
        asked = f"{asked}\n\n{more}" if asked.strip() else more
    turns: list[Message] = []
    for earlier in row.get("history") or []:
        if not isinstance(earlier, list) or len(earlier) != 2:
            raise DataError(f"`history` holds {shown(earlier)}, not a question and its answer",
                            where=str(origin), fix='write [["question", "answer"], ...]',
                            kind="history")  # fmt: skip
        turns += [
            {"role": "user", "content": earlier[0]},
            {"role": "assistant", "content": earlier[1]},
        ]
    own: dict[str, Any] = {"prompt": [*turns, {"role": "user", "content": asked}]}
    read = {"instruction", "input", "history"}
    if kind in ANSWER:
        own["completion"] = _said(row.get("output"))
        read.add("output")
    if kind == "preference":
        own |= {name: _said(row.get(name)) for name in ("chosen", "rejected")}
    if kind == "feedback" and "label" not in row and "kto_tag" in row:
        own["label"] = row["kto_tag"]
        read.add("kto_tag")
    return own | {name: row[name] for name in row if name not in read and name not in own}


def _said(answer: Any) -> Any:
    """A text as an assistant message; anything else is unchanged, for `records` to check."""
    if isinstance(answer, str) and answer.strip():
        return [{"role": "assistant", "content": answer}]
    return answer


def _expect_text(row: Row, names: tuple[str, ...], origin: Origin) -> None:
    for name in names:
        if not isinstance(row.get(name), str | None):
            raise DataError(f"`{name}` is {shown(row[name])}, not a text", where=str(origin),
                            fix="write it as a string", kind="content")  # fmt: skip


def _is_sharegpt(row: Row) -> bool:
    return row.get("conversations") is not None and row.get("messages") is None


def _from_sharegpt(row: Row, kind: RecordKind, origin: Origin) -> Row:
    """`conversations` are strop's `messages`; beside `chosen` and `rejected` they are the prompt.
    The turns themselves (`from`, `value`) are read by `data.messages`."""
    pair = row.get("chosen") is not None and row.get("rejected") is not None
    ours = "prompt" if pair and kind != "demonstration" else "messages"
    answers = {name: row[name] for name in ("chosen", "rejected") if name in row}
    one_turn = {n: [turn] for n, turn in answers.items() if isinstance(turn, Mapping)}
    others = {name: value for name, value in row.items() if name != "conversations"}
    return {ours: row["conversations"], **others, **one_turn}


def _is_transcripts(row: Row) -> bool:
    """Whether both answers are whole conversations in one text, or the prompt is one."""
    if row.get("prompt") is not None:
        return _is_transcript(row["prompt"]) and _turns(row["prompt"])[-1] == ("assistant", "")
    return all(_is_transcript(row.get(name)) for name in ("chosen", "rejected"))


def _is_transcript(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    first = _TURN.match(value)
    return first is not None and len(_TURN.findall(value)) > 1 and first[1] != "Assistant"


def _from_transcripts(row: Row, kind: RecordKind, origin: Origin) -> Row:
    """`"\\n\\nHuman: 2x = 6?\\n\\nAssistant: 3"` as messages: the form of Anthropic's HH data."""
    names = ("chosen", "rejected") if row.get("prompt") is None else ("prompt",)
    return {**row, **{name: _messages(row[name]) for name in names}}


def _messages(transcript: str) -> list[Message]:
    """The turns of a transcript; an open `Assistant:` at its end is no turn."""
    turns = _turns(transcript)
    said = turns[:-1] if turns[-1] == ("assistant", "") else turns
    return [{"role": role, "content": content} for role, content in said]


def _turns(transcript: str) -> list[tuple[str, str]]:
    parts = _TURN.split(transcript)[1:]
    return [
        (_SPEAKERS[who], content.strip())
        for who, content in zip(parts[::2], parts[1::2], strict=True)
    ]


FORMS: tuple[Form, ...] = (
    Form("sharegpt", _is_sharegpt, _from_sharegpt),
    Form("alpaca", _is_alpaca, _from_alpaca),
    Form("transcripts", _is_transcripts, _from_transcripts),
)
"""Other formats, the most specific first."""
