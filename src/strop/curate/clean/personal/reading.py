"""A text as a person reads it, where its signs are written in another way."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator

from strop.curate.clean.personal.spans import Span

_OTHERWISE = re.compile(
    "(?P<unseen>[\u00ad\u200b-\u200d\u2060\ufeff])"
    "|(?P<wide>[\uff0b\uff0d\uff0e\uff10-\uff19\uff20-\uff3a\uff3f\uff41-\uff5a])"
    "|%40|&(?:#0{0,4}64|#[xX]0{0,4}40|commat);"
)
_WIDER = 0xFEE0
"""How far the full-width forms of Unicode stand behind ASCII."""


class Reading:
    r"""A text with its unseen signs taken out, its full-width letters as plain ones, and `%40` and
    `&#64;` as `@`; and where each of its characters stands in the original.

    `Reading("a\u200bnn&#64;mail.org").text == "ann@mail.org"`.
    """

    def __init__(self, original: str) -> None:
        parts: list[str] = []
        self._read, self._written = [0], [0]  # where each stretch begins that is read as written
        self._signs: dict[int, tuple[int, int]] = {}
        length = end = 0
        for match in _OTHERWISE.finditer(original):
            sign = _sign(match)
            parts += [original[end : match.start()], sign]
            length += match.start() - end + len(sign)
            end = match.end()
            if sign:
                self._signs[length - 1] = match.span()
            self._read.append(length)
            self._written.append(end)
        self.text = "".join([*parts, original[end:]])

    def originals(self, spans: Iterable[Span]) -> Iterator[Span]:
        """Where spans of the text as it is read stand in the original."""
        for span in spans:
            yield Span(span.kind, self._original(span.start)[0], self._original(span.end - 1)[1])

    def _original(self, place: int) -> tuple[int, int]:
        """Where a character of the text as it is read begins and ends in the original."""
        if place in self._signs:
            return self._signs[place]
        stretch = bisect_right(self._read, place) - 1
        start = self._written[stretch] + place - self._read[stretch]
        return start, start + 1


def _sign(match: re.Match[str]) -> str:
    """What a person reads there."""
    if match["unseen"]:
        return ""
    return chr(ord(match["wide"]) - _WIDER) if match["wide"] else "@"


def is_read_otherwise(text: str) -> bool:
    """Whether a text holds a sign that is read differently from how it is written."""
    return _OTHERWISE.search(text) is not None
