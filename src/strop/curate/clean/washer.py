"""One record after another: mended, freed of personal data, looked at."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from strop.curate.clean.damage import damaged, mended
from strop.curate.clean.faults import Fault
from strop.curate.clean.language import foreign
from strop.curate.clean.lengths import LengthLimits, out_of_length
from strop.curate.clean.openings import disclaimed, refused, without_opening
from strop.curate.clean.personal.names import names_recogniser
from strop.curate.clean.personal.replace import NOTHING_KNOWN, Known, replace
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
from strop.errors import UsageError
from strop.model.load import load_tokenizer
from strop.recipe.curate import CleanSettings
from strop.types import Record, Task

PERSONAL = "personal"
"""The kind of a record that is left out because of the personal data in it."""

TOLD: tuple[Kind, ...] = ("person", "location")
"""Kinds that are told from the words around them, and may be common words elsewhere."""


class Washer:
    """Does to every record what the settings say, and counts what it found.

    `repairs` counts mended records by what was undone, `personal` the values of each kind. `wash`
    looks at a record by itself. Once all were washed, `rinse` replaces in each what others have
    shown to be a personal value, such as a number that only there stood behind the word "phone".
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
        self._values: dict[str, Kind] = {}
        self._known = NOTHING_KNOWN

    def wash(self, record: Record) -> tuple[Record, BadRow | None]:
        """The record as it is to be written, and why it is left out, if it is."""
        if self.settings.mend:
            record = self._mended(record)
        record, found = self._without_personal(record)
        why = PERSONAL if found and self.settings.pii == "drop" else None
        reason = _told(found)
        if why is None:
            if self.settings.openings == "strip":
                record = self._without_openings(record)
            fault = next(self._faults(record), None)
            why, reason = (None, "") if fault is None else (fault.kind, fault.detail)
        return record, None if why is None else BadRow(why, reason, record.origin, excess=True)

    def all_washed(self) -> None:
        """Say that every record was washed, before the first one is rinsed."""
        self._known = Known(self._values)

    def rinse(self, record: Record, why: BadRow | None) -> tuple[Record, BadRow | None]:
        """The record without the values that others have shown, and why it is left out, if it
        is."""
        if not self._values:
            return record, why
        row = row_of(record)
        if not self._known.spans(json.dumps(row, ensure_ascii=False, default=str)):
            return record, why
        rinsed = replace(row, kinds=self.kinds, known=self._known)
        self.personal.update(rinsed.counts)
        if why is None and rinsed.counts and self.settings.pii == "drop":
            why = BadRow(PERSONAL, _told(rinsed.counts), record.origin, excess=True)
        return from_row(record, rinsed.record), why

    def scrubbed(self, text: str) -> str:
        """A message without the personal values that it may quote from a row."""
        if self.settings.pii == "keep":
            return text
        found = replace(text, kinds=self.kinds, others=self.others, known=self._known)
        return str(found.record)

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
        found = replace(row_of(record), kinds=self.kinds, others=self.others)
        self.personal.update(found.counts)
        if self.settings.pii == "report":
            return record, found.counts
        proven = {value: kind for value, kind in found.values.items() if kind not in TOLD}
        self._values.update(proven)
        return from_row(record, found.record), found.counts

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


def _told(found: Mapping[Kind, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in found.items())


def _kinds(settings: CleanSettings) -> tuple[Kind, ...]:
    if settings.kinds is None:
        return KINDS
    chosen = tuple(kind for kind in KINDS if kind in settings.kinds)
    if unknown := sorted(set(settings.kinds) - set(KINDS)):
        raise UsageError(f"unknown kind of personal data: {', '.join(unknown)}",
                         fix=f"use {', '.join(KINDS)}")  # fmt: skip
    told = sorted(set(TOLD) & set(chosen))
    if told and not settings.names:
        raise UsageError(f"{' and '.join(told)} are told by a model of the language",
                         fix="set names (--names) too, or look for other kinds")  # fmt: skip
    return chosen


def _limits(settings: CleanSettings) -> LengthLimits | None:
    if settings.least is None and settings.most is None:
        return None
    return LengthLimits(settings.unit or "words", settings.least or 0, settings.most)
