"""All recognisers over one text."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from strop.curate.clean.personal.national import national_ids
from strop.curate.clean.personal.network import emails, ips, urls
from strop.curate.clean.personal.payment import cards, ibans
from strop.curate.clean.personal.phones import phones
from strop.curate.clean.personal.reading import Reading, is_read_otherwise
from strop.curate.clean.personal.secrets import secrets
from strop.curate.clean.personal.spans import KINDS, Kind, Recogniser, Span, settle

_ALWAYS: tuple[Recogniser, ...] = (emails, urls, ips, secrets)
_NUMBERS: tuple[Recogniser, ...] = (cards, ibans, phones, national_ids)
_SEVERAL_DIGITS = re.compile(r"\d(?:\W{0,3}\w?\d){4}|[A-Z]\d{4}[A-Z]")
"""What every number of a person has; most sentences do not."""


def find(
    text: str, *, kinds: Collection[Kind] = KINDS, others: Sequence[Recogniser] = ()
) -> list[Span]:
    """Personal values and secrets in a text, without overlap, in order.

    `find("Mail ann@mail.org") == [Span("email", 5, 17)]`. Of two findings that overlap the longest
    is kept, of equal ones the most specific kind (`KINDS`). `kinds` are those that are wanted;
    `others` are more recognisers, such as `names_recogniser` for names and places. A value is also
    found where unseen or full-width signs stand in it, or an `@` is written `%40` or `&#64;`. Time
    grows with the length of the text, whatever it holds.
    """
    spans = (span for span in _all(text, others) if span.kind in kinds)
    return settle(spans, len(text))


def _all(text: str, others: Sequence[Recogniser]) -> Iterator[Span]:
    yield from _proven(text)
    if is_read_otherwise(text):
        reading = Reading(text)
        yield from reading.originals(_proven(reading.text))
    for recogniser in others:
        yield from recogniser(text)


def _proven(text: str) -> Iterator[Span]:
    """What proves itself by its form or by the word before it."""
    numbers = _NUMBERS if _SEVERAL_DIGITS.search(text) else ()
    for recogniser in (*_ALWAYS, *numbers):
        yield from recogniser(text)
