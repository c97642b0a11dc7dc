"""Placeholders for personal values, the same for the same value throughout a record."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import unquote

from ahocorasick_rs import AhoCorasick, MatchKind

from strop.curate.clean.personal.find import find
from strop.curate.clean.personal.reading import Reading
from strop.curate.clean.personal.secrets import is_mixed, logins
from strop.curate.clean.personal.spans import KINDS, Kind, Recogniser, Span, settle
from strop.data.json_text import parsed
from strop.errors import DataError

ALONE = 12
"""Signs from which a value is replaced wherever it stands; a shorter one not inside a word, so that
the name Ann leaves Annual as it is."""
SMALLEST = 1_000_000
"""A number from here on may be a phone or card number that was written without quotes."""

_NUMBERS: frozenset[Kind] = frozenset({"phone", "card", "iban", "ssn", "national_id"})
LAST = 9
"""Digits at the end of a phone number that are the same with and without its country code."""
_RUN = re.compile(r"(?<![\w+])\+?\(?\d(?:[ \u00a0().\-/\u2010-\u2015]{0,3}\d){6,24}(?!\w)")
"""Digits with what people write between them."""
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
"""Where the next word of a key in camel case begins."""
_PLACEHOLDER = re.compile(r"<([A-Z]+(?:_[A-Z]+)*)_([1-9]\d{0,8})>")
_HALVES = re.compile("[\ud800-\udfff]")


class Known:
    """Values that are replaced wherever they stand, also where no recogniser sees them.

    `Known({"467 3395": "phone"}).spans("467 3395, she said") == [Span("phone", 0, 8)]`. Looking
    takes time that grows with the text, not with the number of values.
    """

    def __init__(self, values: Mapping[str, Kind]) -> None:
        written: dict[str, Kind] = {}
        for value, kind in values.items():
            written |= dict.fromkeys(_ways_to_write(value, kind), kind)
        self._numbers = {
            key: kind
            for value, kind in values.items()
            if kind in _NUMBERS and (key := _number_key(value, kind))
        }
        self._kinds = list(written.values())
        self._search = AhoCorasick(map(_whole, written), matchkind=MatchKind.LeftmostLongest)

    def spans(self, text: str) -> list[Span]:
        hits = self._search.find_matches_as_indexes(_whole(text)) if self._kinds else []
        found = [
            Span(self._kinds[which], start, end)
            for which, start, end in hits
            if end - start >= ALONE or _stands_alone(text, start, end)
        ]
        return found + self._other_ways(text)

    def _other_ways(self, text: str) -> list[Span]:
        """Known numbers that are written with other separators, or without their country code."""
        found = []
        for run in _RUN.finditer(text) if self._numbers else ():
            digits = "".join(filter(str.isdigit, run.group()))
            kind = self._numbers.get(digits) or self._numbers.get(f"~{digits[-LAST:]}")
            if kind is not None and (digits in self._numbers or len(digits) > LAST):
                found.append(Span(kind, *run.span()))
        return found


def _ways_to_write(value: str, kind: Kind) -> set[str]:
    """As it was found and as it is read, both as they stand inside of JSON, and a number without
    its separators."""
    ways = set[str]()
    for way in (value, Reading(value).text):
        ways |= {way, json.dumps(way)[1:-1], json.dumps(way, ensure_ascii=False)[1:-1]}
    if kind in _NUMBERS:
        ways.add(_bare(value))
    return ways


def _number_key(value: str, kind: Kind) -> str | None:
    """What two ways of writing one number have in common: its digits, of a long phone number the
    last ones. None for a short one, and for one with letters."""
    digits = "".join(filter(str.isdigit, value))
    if len(digits) < 7 or any(sign.isalpha() for sign in value):
        return None
    return f"~{digits[-LAST:]}" if kind == "phone" and len(digits) > LAST else digits


def _bare(number: str) -> str:
    return re.sub(r"[^A-Za-z0-9+]", "", number)


def _whole(text: str) -> str:
    """Halves of surrogate pairs, which the search does not take, as the replacement character."""
    return _HALVES.sub("\ufffd", text)


def _stands_alone(text: str, start: int, end: int) -> bool:
    before, after = text[start - 1 : start], text[end : end + 1]
    return not (
        (before.isalnum() and text[start].isalnum())
        or (after.isalnum() and text[end - 1].isalnum())
    )


NOTHING_KNOWN = Known({})


def personal_values(
    record: Any, *, kinds: Collection[Kind] = KINDS, others: Sequence[Recogniser] = ()
) -> dict[str, Kind]:
    """Each personal value of a record's texts, keys and numbers, as it is written, and its kind.

    `personal_values({"phone": "467 3395"}) == {"467 3395": "phone"}`: a key says what its value
    is, as a word before it would. A text that is JSON (the arguments of a tool call) is read as
    what it holds.
    """
    values: dict[str, Kind] = {}
    for key, text in _texts(record, ""):
        for value, kind in _shown(text, _found(key, text, kinds, others), kinds):
            values.setdefault(value, kind)
    return values


class Replaced(NamedTuple):
    """A record without its personal values: `Replaced("I am <EMAIL_1>", Counter(email=1),
    {"a@b.org": "email"})`. `counts` are the placeholders that were put in, `values` what was found
    in the record itself, as it was written."""

    record: Any
    counts: Counter[Kind]
    values: dict[str, Kind]


def replace(
    record: Any,
    *,
    kinds: Collection[Kind] = KINDS,
    others: Sequence[Recogniser] = (),
    known: Known = NOTHING_KNOWN,
) -> Replaced:
    """A record with placeholders for its personal values, and how many were put in of each kind.

    `replace({"prompt": "I am a@b.org", "chosen": "Hi a@b.org"})` gives `Replaced({"prompt": "I am
    <EMAIL_1>", "chosen": "Hi <EMAIL_1>"}, Counter(email=2), {"a@b.org": "email"})`.

    Equal values get equal placeholders, in prompt and answers, keys, numbers, nested values and
    JSON texts alike; different ones get different numbers, in the order of their first appearance,
    and none that the record's own text already uses. A value that was found once is replaced
    wherever the record has it. `known` are values from elsewhere, such as other records.
    """
    texts = list(_texts(record, ""))
    values: dict[str, Kind] = {}
    spans: dict[tuple[str, str], list[Span]] = {}
    for key, text in texts:
        spans[key, text] = _found(key, text, kinds, others)
        for value, kind in _shown(text, spans[key, text], kinds):
            values.setdefault(value, kind)
    writer = _Writer(spans, Known(values), known, _taken(text for _, text in texts))
    return Replaced(writer.value(record, ""), writer.counts, values)


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every text of a value with the key it stands under, keys themselves included."""
    if isinstance(value, str):
        inner = _json(value)
        yield from [(key, value)] if inner is None else _texts(inner, key)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield "", name
            yield from _texts(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, key)
    elif _is_long_number(value):
        yield key, str(int(value))


def _json(text: str) -> Any:
    """The object or list that a text is; nothing for any other text."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return parsed(text, "")
    except DataError:
        return None


def _is_long_number(value: Any) -> bool:
    """Whether a number may be a personal value; one without a fraction may be written as a float,
    as columns with gaps are."""
    whole = type(value) is int or (type(value) is float and value.is_integer())
    return whole and value >= SMALLEST


def _found(
    key: str, text: str, kinds: Collection[Kind], others: Sequence[Recogniser]
) -> list[Span]:
    """What stands in a text, read behind its key; `customerPhone` is read as `customer_phone`."""
    named = f"{_CAMEL.sub('_', key)}: " if key else ""
    skipped = len(named)
    return [
        Span(span.kind, span.start - skipped, span.end - skipped)
        for span in find(named + text, kinds=kinds, others=others)
        if span.start >= skipped
    ]


def _shown(text: str, spans: Sequence[Span], kinds: Collection[Kind]) -> Iterator[tuple[str, Kind]]:
    """The values at these places, and the passwords inside of addresses among them; a password
    that may be a plain word is not looked for elsewhere."""
    for span in spans:
        yield text[span.start : span.end], span.kind
    for login in logins(text) if "secret" in kinds else ():
        password = text[login.start : login.end]
        for written in dict.fromkeys((password, unquote(password))):
            if is_mixed(written) or len(written) >= ALONE:
                yield written, "secret"


def _taken(texts: Iterator[str]) -> set[str]:
    return {match.group() for text in texts for match in _PLACEHOLDER.finditer(text)}


@dataclass(slots=True)
class _Writer:
    """Writes one record anew; `given` are the placeholders of the values met so far."""

    spans: Mapping[tuple[str, str], Sequence[Span]]
    own: Known
    known: Known
    taken: set[str]
    given: dict[tuple[Kind, str], str] = field(default_factory=dict)
    numbers: Counter[Kind] = field(default_factory=Counter)
    counts: Counter[Kind] = field(default_factory=Counter)

    def value(self, value: Any, key: str) -> Any:
        if isinstance(value, str):
            return self._text_or_json(value, key)
        if isinstance(value, dict):
            return self._object(value)
        if isinstance(value, list):
            return [self.value(item, key) for item in value]
        if _is_long_number(value):
            digits = str(int(value))
            written = self._text(digits, key)
            return value if written == digits else written
        return value

    def _object(self, value: dict[str, Any]) -> dict[str, Any]:
        written: dict[str, Any] = {}
        for name, item in value.items():
            new = self._text(name, "")
            if new in written:  # one value written in two ways
                new = f"{new} ({len(written)})"
            written[new] = self.value(item, name)
        return written

    def _text_or_json(self, text: str, key: str) -> str:
        """A JSON text keeps its spaces where only texts in it change; else it is printed anew."""
        inner = _json(text)
        if inner is None:
            return self._text(text, key)
        before = self.counts.copy()
        new = self.value(inner, key)
        if new == inner:
            return text
        counted = self.counts
        self.counts = before
        written = self._text(text, key)
        self.counts = counted
        return written if _json(written) == new else json.dumps(new, ensure_ascii=False)

    def _text(self, text: str, key: str) -> str:
        found = self.spans.get((key, text), ())
        spans = settle([*found, *self.own.spans(text), *self.known.spans(text)], len(text))
        parts, end = [], 0
        for span in spans:
            parts += [text[end : span.start], self._placeholder(span, text)]
            end = span.end
        return "".join(parts) + text[end:]

    def _placeholder(self, span: Span, text: str) -> str:
        self.counts[span.kind] += 1
        same = span.kind, _same(span.kind, text[span.start : span.end])
        if same not in self.given:
            self.given[same] = self._new(span.kind)
        return self.given[same]

    def _new(self, kind: Kind) -> str:
        while True:
            self.numbers[kind] += 1
            placeholder = f"<{kind.upper()}_{self.numbers[kind]}>"
            if placeholder not in self.taken:
                return placeholder


def _same(kind: Kind, value: str) -> str:
    """What two ways of writing one value have in common."""
    value = Reading(value).text
    if kind in _NUMBERS:
        return _number_key(value, kind) or _bare(value).upper()
    return value.casefold() if kind in ("email", "person", "location") else value
