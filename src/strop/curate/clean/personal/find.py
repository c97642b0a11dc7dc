"""All recognisers over one text."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from strop.curate.clean.personal.national import national_ids
from strop.curate.clean.personal.network import emails, ips, urls
from strop.curate.clean.personal.payment import cards, ibans
from strop.curate.clean.personal.phones import phones
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
    `others` are more recognisers, such as `names_recogniser` for names and places. Time grows with
    the length of the text, whatever it holds.
    """
    spans = (span for span in _all(text, others) if span.kind in kinds)
    return settle(spans, len(text))


def _all(text: str, others: Sequence[Recogniser]) -> Iterator[Span]:
    numbers = _NUMBERS if _SEVERAL_DIGITS.search(text) else ()
    for recogniser in (*_ALWAYS, *numbers, *others):
        yield from recogniser(text)
