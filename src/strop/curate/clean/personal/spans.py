"""Where a personal value stands in a text, and which of two that overlap is kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal[
    "secret",
    "url",
    "email",
    "iban",
    "card",
    "ssn",
    "national_id",
    "ip",
    "phone",
    "person",
    "location",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Most specific first: of two findings of the same length, the one that stands here first wins."""

LETTERS = "A-Za-z0-9\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0370-\u03ff\u0400-\u052f"
"""Letters and digits of an address, as a character class: Latin, Greek and Cyrillic. Scripts that
are written without spaces are left out, else the words around an address would belong to it."""

NEAR = 48
"""Characters before a value in which a word may say what it is."""


@dataclass(frozen=True, slots=True)
class Span:
    """`Span("email", 9, 20)` in `"write to ann@mail.org"`: characters `start` up to `end`."""

    kind: Kind
    start: int
    end: int


Recogniser = Callable[[str], Iterable[Span]]
"""Finds values of one or several kinds in a text; what it finds may overlap."""


def settle(spans: Iterable[Span], length: int) -> list[Span]:
    """Spans of a text of `length` characters without overlap, in order: the longest wins, of equal
    ones the most specific kind.

    Whatever was kept is at least as long as what comes later, so an overlap shows at the first or
    the last character.
    """
    taken = bytearray(length)
    kept = []
    for span in sorted(spans, key=_longest_first):
        if not taken[span.start] and not taken[span.end - 1]:
            taken[span.start : span.end] = b"\1" * (span.end - span.start)
            kept.append(span)
    return sorted(kept, key=_begin)


def _longest_first(span: Span) -> tuple[int, int, int]:
    return span.start - span.end, KINDS.index(span.kind), span.start


def _begin(span: Span) -> int:
    return span.start


def said_before(text: str, start: int, words: re.Pattern[str]) -> bool:
    """Whether one of `words` stands shortly before a place, on its line or the one above."""
    return words.search(text, max(0, start - NEAR), start) is not None
