"""Payment cards and bank accounts: numbers that prove themselves by their check digits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from stdnum import iban, luhn, numdb

from strop.curate.clean.personal.spans import Span, said_before

_CARD = re.compile(r"(?<![\w.])(?<!\d[ -])(?<![$€£+])\d(?:[ -]?\d){11,18}(?![ -]?\d|\w|\.\d)")
_ISSUERS = tuple(
    (re.compile(prefix), lengths)
    for prefix, lengths in (
        (r"4", (16, 19)),  # Visa
        (r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720", (16,)),  # Mastercard
        (r"3[47]", (15,)),  # American Express
        (r"30[0-5]|36|38|39", (14, 16, 19)),  # Diners Club
        (r"6011|64[4-9]|65", (16, 19)),  # Discover
        (r"352[89]|35[3-8]", (16, 19)),  # JCB
        (r"2131|1800", (15,)),  # JCB, older
        (r"62|81", (16, 17, 18, 19)),  # UnionPay
        (r"50|5[6-8]|6304|6390|67", (13, 14, 15, 16, 17, 18, 19)),  # Maestro
        (r"220[0-4]", (16, 17, 18, 19)),  # Mir
        (r"60|82|508|353|356", (16,)),  # RuPay
        (r"9792", (16,)),  # Troy
        (r"63[6-9]", (16, 19)),  # InterPayment, InstaPayment
    )
)
_BANKING = re.compile("[2-6]")
"""First digits of cards of travel and banking."""
_GROUPS = {(4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4, 4, 3), (4, 4, 4, 1), (4, 4, 4), (6, 13)}
_CALLED_CARD = re.compile(
    r"(?<![^\W_])(?:card|cc|visa|maestro|credit|debit|karte|kreditkarte|carte|tarjeta|carta"
    r"|cartão|pan)(?![^\W_])",
    re.IGNORECASE,
)
_SEPARATOR = re.compile("[ -]")


def cards(text: str) -> Iterator[Span]:
    """Card numbers of 12 to 19 digits, bare or in the groups that are printed on cards, that pass
    Luhn's check and have an issuer's prefix and one of its lengths (ISO/IEC 7812-1).

    After a word for a card any prefix of travel and banking will do: ranges are given out anew
    each year. Visa's old 13 digits and Maestro's 12 need such a word, since numbers of goods and
    orders have these lengths and one in ten passes the check.
    """
    for match in _CARD.finditer(text):
        groups = _SEPARATOR.split(match.group())
        number = "".join(groups)
        grouped = len(groups) == 1 or tuple(map(len, groups)) in _GROUPS
        if grouped and luhn.is_valid(number) and _is_issued(number, text, match.start()):
            yield Span("card", match.start(), match.end())


def _is_issued(number: str, text: str, start: int) -> bool:
    if any(prefix.match(number) and len(number) in lengths for prefix, lengths in _ISSUERS):
        return True
    return _BANKING.match(number) is not None and said_before(text, start, _CALLED_CARD)


_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?=[ -]?[A-Za-z0-9])")
_ACCOUNTS = numdb.get("iban")


def ibans(text: str) -> Iterator[Span]:
    """Account numbers (ISO 13616) of a registered country, with its length and structure, that
    leave 1 modulo 97; with or without single spaces or hyphens, in capitals or not."""
    for match in _IBAN.finditer(text):
        length = _iban_length(match.group()[:2].upper())
        written = _first_signs(text, match.start(), length)
        if (
            written
            and iban.is_valid(written, check_country=False)
            and not _goes_on(text, match.start() + len(written), written)
        ):
            yield Span("iban", match.start(), match.start() + len(written))


@lru_cache(maxsize=1024)
def _iban_length(country: str) -> int:
    """Signs of an account number in a country, 0 where there is none."""
    structure = _ACCOUNTS.info(country)[0][1].get("bban", "")
    parts = [int(count) for count in re.findall(r"(\d+)!", structure)]
    return 4 + sum(parts) if parts else 0


def _first_signs(text: str, start: int, count: int) -> str:
    """The next `count` letters and digits with single separators between; nothing where there are
    fewer, or another follows."""
    if not count:
        return ""
    found = re.compile(rf"[A-Za-z0-9](?:[ -]?[A-Za-z0-9]){{{count - 1}}}(?![A-Za-z0-9])")
    match = found.match(text, start)
    return match.group() if match else ""


def _goes_on(text: str, end: int, written: str) -> bool:
    """Whether another group of digits follows a number whose groups of four are all full."""
    full = _SEPARATOR.search(written[-5:-4]) is not None
    return full and re.compile(r"[ -]\d{1,4}(?!\w)").match(text, end) is not None
