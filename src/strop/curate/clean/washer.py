"""One record after another: mended, freed of personal data, looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from strop.curate.clean.damage import damaged, mended
from strop.curate.clean.faults import Fault
from strop.curate.clean.language import foreign
from strop.curate.clean.lengths import LengthLimits, out_of_length
from strop.curate.clean.openings import disclaimed, refused, without_opening
from strop.curate.clean.personal.names import names_recogniser
from strop.curate.clean.personal.replace import replace
from strop.curate.clean.personal.spans import KINDS, Kind, Recogniser
from strop.curate.clean.texts import (
    answer_texts,
    from_row,
    imitated_text,
    prompt_text,
    with_answers,
    with_texts,
)
from strop.data.bad_rows import BadRow
from strop.data.records import row_of
from strop.errors import DataError, UsageError
from strop.model.load import load_tokenizer
from strop.recipe.curate import CleanSettings
from strop.types import Record, Task

PERSONAL = "personal"
"""The kind of a record that is left out because of the personal data in it."""

Look = Callable[[Record], Fault | None]


class Washer:
    """Does to every record what the settings say, and counts what it found.

    `repairs` counts mended records by what was undone, `personal` the values of each kind.
    """

    def __init__(self, settings: CleanSettings) -> None:
        self.settings = settings
        self.kinds = _kinds(settings)
        self.others: tuple[Recogniser, ...] = (
            (names_recogniser(settings.spacy_model),) if settings.names else ()
        )
        self.limits = _limits(settings)
        self.tokenizer: Any = load_tokenizer(settings.tokenizer) if settings.tokenizer else None
        self.repairs: Counter[str] = Counter()
        self.personal: Counter[Kind] = Counter()

    def wash(self, record: Record) -> tuple[Record, BadRow | None]:
        """The record as it is to be written, and why it is left out, if it is."""
        if self.settings.mend:
            record = self._mended(record)
        record, found = self._without_personal(record)
        why = PERSONAL if found and self.settings.pii == "drop" else None
        reason = ", ".join(f"{count} {kind}" for kind, count in found.items())
        if why is None:
            if self.settings.openings == "strip":
                record = self._without_openings(record)
            fault = next(self._faults(record), None)
            why, reason = (None, "") if fault is None else (fault.kind, fault.detail)
        return record, None if why is None else BadRow(why, reason, record.origin, excess=True)

    def scrubbed(self, text: str) -> str:
        """A message without the personal values that it may quote from a row."""
        if self.settings.pii == "keep":
            return text
        clean, _ = replace(text, kinds=self.kinds, others=self.others)
        return str(clean)

    def _mended(self, record: Record) -> Record:
        done: set[str] = set()

        def mend(text: str) -> str:
            found = mended(text)
            done.update(found.repairs)
            return found.text

        record = with_texts(record, mend)
        self.repairs.update(done)
        return record

    def _without_personal(self, record: Record) -> tuple[Record, Counter[Kind]]:
        if self.settings.pii == "keep":
            return record, Counter()
        row, found = replace(row_of(record), kinds=self.kinds, others=self.others)
        self.personal.update(found)
        return (record if self.settings.pii == "report" else from_row(record, row)), found

    def _without_openings(self, record: Record) -> Record:
        opened: set[str] = set()

        def strip(text: str) -> str:
            found = without_opening(text)
            opened.update(found.repairs)
            return found.text

        shorter = with_answers(record, strip)
        self.repairs.update(opened)
        return shorter

    def _faults(self, record: Record) -> Iterator[Fault]:
        """What the record is left out for, the first thing first."""
        imitated, wanted = imitated_text(record), self.settings.languages
        texts = dict.fromkeys([prompt_text(record), *answer_texts(record)])
        if self.settings.damaged == "drop":
            yield from filter(None, map(damaged, texts))
        if wanted:
            yield from filter(None, (foreign(text, wanted) for text in texts))
        if not isinstance(record, Task):
            looks = {refused: self.settings.refusals, disclaimed: self.settings.disclaimers}
            found = (look(imitated) for look, action in looks.items() if action == "drop")
            yield from filter(None, found)
        if self.limits is not None:
            looked_at = [imitated] if isinstance(record, Task) else answer_texts(record)
            limited = (out_of_length(text, self.limits, self.tokenizer) for text in looked_at)
            yield from filter(None, limited)


def _kinds(settings: CleanSettings) -> tuple[Kind, ...]:
    if settings.kinds is None:
        return KINDS
    chosen = tuple(kind for kind in KINDS if kind in settings.kinds)
    if unknown := sorted(set(settings.kinds) - set(KINDS)):
        raise UsageError(f"unknown kind of personal data: {', '.join(unknown)}",
                         fix=f"use {', '.join(KINDS)}")  # fmt: skip
    return chosen


def _limits(settings: CleanSettings) -> LengthLimits | None:
    if settings.least is None and settings.most is None:
        return None
    return LengthLimits(settings.unit or "words", settings.least or 0, settings.most)


def scrub_error(error: DataError, washer: Washer) -> DataError:
    """An error about a row, without the personal values that it may quote."""
    fix = None if error.fix is None else washer.scrubbed(error.fix)
    return DataError(washer.scrubbed(error.problem), where=error.where, fix=fix, kind=error.kind)
