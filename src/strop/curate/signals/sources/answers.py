"""Answers in columns of strop's own names: what a table, a sampler or an annotation tool exports.

    {"prompt": "...", "completion": "...", "correct": true}     one answer a row
    {"prompt": "...", "completions": ["...", "..."], "scores": [0.2, 0.9]}   several

with any of `label` (a thumb), `correct`, `score`, `edited`, `reference` beside `completion`, and
`labels`, `corrects`, `scores`, `choice` beside `completions`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from strop.curate.signals.interaction import Found, Interaction, Signal, SignalKind, number_in
from strop.curate.signals.rules import yes_or_no
from strop.curate.signals.sources.values import answer, conversation, first, text_id, time_of, what
from strop.data.forms import Row
from strop.errors import DataError
from strop.types import Origin

NAME = "answers"

ONE = {"label": "label", "correct": "correct", "score": "score"}
MANY = {"labels": "label", "corrects": "correct", "scores": "score"}
SAMPLED = ("meta.engine.path", "meta.engine.sha256", "meta.engine.endpoint", "meta.engine.model",
           "meta.sample", "meta.finish")  # fmt: skip
"""What `strop data sample` writes beside an answer."""
FIELDS = frozenset(
    ("prompt", "completion", "completions", "edited", "reference", "choice", "id", "trace_id",
     "session", "time", "tools", *ONE, *MANY, *SAMPLED)
)  # fmt: skip


def recognise(row: Row) -> bool:
    """Whether a row has a prompt and one or more answers."""
    return "prompt" in row and bool({"completion", "completions"} & row.keys())


def read(row: Row, origin: Origin) -> Iterator[Found]:
    """An interaction with what the columns say of its answers."""
    several = row.get("completions")
    if several is not None and not isinstance(several, list):
        raise DataError(f"`completions` is {what(several)}", where=str(origin),
                        fix="write a list of answers", kind="completions")  # fmt: skip
    given = [row.get("completion")] if several is None else several
    said = [answer(one, "completion", origin) for one in given]
    signals = _one(row, origin) if several is None else _many(row, len(said), origin)
    yield Interaction(
        NAME,
        conversation(row.get("prompt"), "prompt", origin),
        tuple(said) if all(said) else (),
        origin,
        id=text_id(row.get("id")),
        trace_id=text_id(first(row, "trace_id", "id")),
        time=time_of(row.get("time")),
        signals=(*signals, *_reference(row, origin)),
        session=text_id(row.get("session")),
        columns={"tools": row["tools"]} if row.get("tools") else {},
    )


def _reference(row: Row, origin: Origin) -> Iterator[Signal]:
    if row.get("reference") is not None:
        yield Signal("reference", "reference", row["reference"], origin)


def _one(row: Row, origin: Origin) -> Iterator[Signal]:
    for column, name in ONE.items():
        if row.get(column) not in (None, ""):
            yield _mark(name, row[column], origin)
    if row.get("edited") is not None:
        yield Signal("edit", "edited", row["edited"], origin)


def _many(row: Mapping[str, Any], answers: int, origin: Origin) -> Iterator[Signal]:
    for column, name in MANY.items():
        values = row.get(column)
        if values is None:
            continue
        if not isinstance(values, list) or len(values) != answers:
            raise DataError(
                f"`{column}` holds {len(values) if isinstance(values, list) else what(values)} "
                f"values for {answers} completions",
                where=str(origin), fix="write a value for each answer, null where there is none",
                kind="values",
            )  # fmt: skip
        for place, value in enumerate(values):
            if value is not None:
                yield _mark(name, value, origin, place)
    if row.get("choice") is not None:
        place = row["choice"]
        if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < answers:
            raise DataError(f"`choice` is no place of one of {answers} completions",
                            where=str(origin), fix="write the place of an answer, from 0",
                            kind="choice")  # fmt: skip
        yield Signal("choice", "choice", True, origin, answer=place)


_KINDS: Mapping[str, SignalKind] = {"label": "thumb", "correct": "verdict", "score": "score"}


def _mark(name: str, value: Any, origin: Origin, place: int = -1) -> Signal:
    """A signal whose column says what it means. Raises `DataError` for a value of another type."""
    read = _score(value) if name == "score" else yes_or_no(value)
    if read is None:
        wanted = "a number" if name == "score" else "true or false"
        raise DataError(f"`{name}` is {what(value)}", where=str(origin), fix=f"use {wanted}",
                        kind=name)  # fmt: skip
    return Signal(_KINDS[name], name, read, origin, answer=place)


def _score(value: Any) -> float | None:
    """A number, or the text of one, as the cells of a CSV file are."""
    number = number_in(value) if isinstance(value, str) else value
    if not isinstance(number, int | float) or isinstance(number, bool) or not math.isfinite(number):
        return None
    return number
