"""Phone numbers: with a country code, as a country writes them, or with a word that says so."""

from __future__ import annotations

import re
from collections.abc import Iterator

import phonenumbers

from strop.curate.clean.personal.spans import Span, said_before

_EXTENSION = r"(?:[ ,;]{0,2}(?:x|ext\.?|extension)[ .:]{0,2}\d{1,6}(?!\w))?"
_PART = r"[ .\u00a0-]"
_GAP = r"[ .\u00a0\u2009/-]"
_ABROAD = re.compile(
    rf"(?<![\w+])(?:\+|(?<![.,:/-])(?:00(?=[1-9])|011(?=[ -]?[1-9])))[ -]?\d{{1,3}}"
    rf"(?:{_GAP}{{0,2}}\(?\d{{1,12}}\)?){{1,7}}{_EXTENSION}(?!\w)"
)
_AMERICAN = re.compile(
    rf"(?<![\w.+@/=#-])(?<!\d )(?:(?:\+?1|001)[ .-]?)?"
    rf"(?:\([2-9]\d\d\)[ -]?|[2-9]\d\d[ .-])[2-9]\d\d[ .-]\d{{4}}{_EXTENSION}(?!\w|[-.]\d)"
)
"""Area code and exchange begin with 2 to 9 (the North American numbering plan). Which of them are
given out changes every year and is not asked."""

_NATIONAL = tuple(
    (re.compile(rf"(?<![\w.+@/=#-])(?<!\d )(?:{shape})(?!\w|[ .-]\d)"), region)
    for shape, region in (
        (r"\(?0\d{3,4}\)? \d{3} \d{3,4}|\(?0\d{2}\)? \d{4} \d{4}|0\d{4} \d{6}", "GB"),
        (r"0[1-9](?:[ .-]\d\d){4}", "FR"),
        (r"\(?0\d{2,4}\)?[ /-]{1,3}\d{5,8}", "DE"),
        (r"\(0\d\) \d{4} \d{4}|04\d\d \d{3} \d{3}", "AU"),
        (r"\(\d\d\) 9?\d{4}-\d{4}", "BR"),
        (r"0\d{1,2}-\d{4}-\d{4}", "JP"),
        (r"01\d-\d{4}-\d{4}|02-\d{3,4}-\d{4}", "KR"),
    )
)
"""How some countries write their own numbers; the plan of the country has to know the number."""

_NAMED = re.compile(
    rf"(?<![\w.+@/=#(])(?<!\d[ .-])\(?\d(?:{_PART}?[()]?{_PART}?\d){{6,12}}{_EXTENSION}"
    r"(?!\w|[-.]?\d)"
)
_WORD = r"(?<![^\W_])"
"""Where a word begins, also behind the underline of a key such as `customer_phone`."""
_CALLED_PHONE = re.compile(
    rf"(?:{_WORD}(?:tele)?(?:phone|fon|fono|fone|foon|fax)(?:e?s|nummer)?"
    rf"|{_WORD}(?:tel|mob|mobile|cell|handy|cellphone|whatsapp|sms|landline|hotline|call|calling|answering|ring|dial|reach|móvil"
    r"|celular|(?:desk|office|home|work)(?= ?:| phone| number)|rufnummer"
    r"|handynummer|text (?:me|us|him|her|them)|contact|(?:my|his|her|their|our)"
    r"(?= number))|registered)"
    r"(?:[_ ]?(?:numbers?|no\b|nr\b))?(?: (?:me|us|him|her|them|back|number))?"
    r"(?: (?:on|at|under|is|was|to))*[\s.:#=\"'(*]{0,5}$",
    re.IGNORECASE,
)
_THEN_PHONE = re.compile(r"[ ,(-]{0,3}(?:office|fax|mobile|cell|home|work|desk)\b", re.IGNORECASE)
_GROUP = re.compile(r"\d+")
_STATES = re.compile(r"1?[2-9]\d\d[2-9]\d{6}")
_FICTION = re.compile(r"77009\d{5}")
"""What the British regulator keeps for films, which examples and tests are full of."""


def phones(text: str) -> Iterator[Span]:
    """Phone numbers in the forms above; the library phonenumbers knows the plans."""
    for match in _ABROAD.finditer(text):
        end = _end_of_number(text, match)
        if end:
            yield Span("phone", match.start(), end)
    for match in _AMERICAN.finditer(text):
        yield Span("phone", match.start(), match.end())
    for shape, region in _NATIONAL:
        for match in shape.finditer(text):
            if _is_known(match.group(), region):
                yield _span(match)
    for match in _NAMED.finditer(text):
        if _is_dialled(match.group()) and _is_called_phone(text, match):
            yield _span(match)


def _span(match: re.Match[str]) -> Span:
    """Without a bracket in front that is closed after the number."""
    outer = match.group().startswith("(") and ")" not in match.group()
    return Span("phone", match.start() + outer, match.end())


def _end_of_number(text: str, match: re.Match[str]) -> int:
    """Where the longest run of the match's groups ends that is a number; 0 where none is."""
    start = match.start()
    ends = [start + group.end() for group in _GROUP.finditer(match.group())]
    return next((end for end in reversed(ends) if _is_foreign(text[start:end])), 0)


def _is_foreign(written: str) -> bool:
    number = re.sub(r"^(?:00|011)[ -]?", "+", written)
    digits = "".join(_GROUP.findall(_without_extension(number)))
    if digits.startswith("1"):
        return _STATES.fullmatch(digits) is not None
    return 7 <= len(digits) <= 16 and _is_known(number, None)


def _without_extension(number: str) -> str:
    return re.split(r"[x,;e]", number, maxsplit=1, flags=re.IGNORECASE)[0]


def _is_known(number: str, region: str | None) -> bool:
    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return False
    if parsed.country_code == 44 and _FICTION.fullmatch(str(parsed.national_number)):
        return True
    return phonenumbers.is_valid_number(parsed)


def _is_dialled(written: str) -> bool:
    """Whether digits that are called a phone number can be one: seven as 3 and 4, else any groups
    but those of a date; what is written the American way has to keep the American plan."""
    groups = tuple(_GROUP.findall(_without_extension(written)))
    sizes, digits = tuple(map(len, groups)), "".join(groups)
    if len(digits) == 7:
        return sizes in ((3, 4), (7,)) and digits[0] not in "01"
    spaced = not re.search("[-.()]", written)
    american = sizes[0] == 3 and (len(sizes) == 2 or (sizes[1] == 3 and len(sizes) == 3))
    if sizes == (10,) or (american and not (spaced and (digits[0] == "0" or sizes[2:] != (4,)))):
        return _STATES.fullmatch(digits) is not None
    return sizes not in ((4, 2, 2), (2, 2, 4))


def _is_called_phone(text: str, match: re.Match[str]) -> bool:
    before = said_before(text, match.start(), _CALLED_PHONE)
    return before or _THEN_PHONE.match(text, match.end()) is not None
