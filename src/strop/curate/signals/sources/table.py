"""The sources that `strop data build` knows, the most telling first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from strop.curate.signals.interaction import Found
from strop.curate.signals.sources import (
    answers,
    chat_log,
    langfuse,
    langsmith,
    mlflow,
    openai_files,
    otel,
    serving_log,
    tickets,
)
from strop.data.forms import Row
from strop.types import Origin


def _itself(row: Row) -> Iterator[Row]:
    yield row


@dataclass(frozen=True, slots=True)
class Source:
    """How one kind of export is read.

    `recognise` says whether a row is of it, `read` what a row holds. `fields` are the dotted paths
    that are read, or known and not needed: `a.*` stands for all that begins so, `a{}` for an object
    whose texts and messages are read. `unwrap` takes a row apart that holds many.
    """

    recognise: Callable[[Row], bool]
    read: Callable[[Row, Origin], Iterator[Found]]
    fields: frozenset[str]
    unwrap: Callable[[Row], Iterator[Row]] = _itself


SOURCES = {
    openai_files.PREFERENCE: Source(
        openai_files.is_preference, openai_files.read_preference, openai_files.PREFERENCE_FIELDS
    ),
    otel.NAME: Source(otel.recognise, otel.read, otel.FIELDS, otel.unwrap),
    mlflow.NAME: Source(mlflow.recognise, mlflow.read, mlflow.FIELDS),
    langsmith.NAME: Source(langsmith.recognise, langsmith.read, langsmith.FIELDS),
    langfuse.NAME: Source(langfuse.recognise, langfuse.read, langfuse.FIELDS),
    tickets.NAME: Source(tickets.recognise, tickets.read, tickets.FIELDS),
    serving_log.NAME: Source(serving_log.recognise, serving_log.read, serving_log.FIELDS),
    answers.NAME: Source(answers.recognise, answers.read, answers.FIELDS),
    chat_log.NAME: Source(chat_log.recognise, chat_log.read, chat_log.FIELDS),
    openai_files.CHAT: Source(
        openai_files.is_chat, openai_files.read_chat, openai_files.CHAT_FIELDS
    ),
}


def source_of(row: Row) -> str | None:
    """The source that a row looks like: the first whose fields it has."""
    return next((name for name, source in SOURCES.items() if source.recognise(row)), None)
