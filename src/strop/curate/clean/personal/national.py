"""Numbers that a state gives a person, by the rules of each (the library python-stdnum)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import stdnum.ar.cuit
import stdnum.au.tfn
import stdnum.be.nn
import stdnum.bg.egn
import stdnum.br.cpf
import stdnum.ca.sin
import stdnum.ch.ssn
import stdnum.cl.rut
import stdnum.cn.ric
import stdnum.cz.rc
import stdnum.de.idnr
import stdnum.dk.cpr
import stdnum.ee.ik
import stdnum.es.dni
import stdnum.es.nie
import stdnum.fi.hetu
import stdnum.fr.nir
import stdnum.gb.nhs
import stdnum.gr.amka
import stdnum.hr.oib
import stdnum.ie.pps
import stdnum.il.idnr
import stdnum.in_.aadhaar
import stdnum.in_.pan
import stdnum.it.codicefiscale
import stdnum.jp.in_
import stdnum.kr.rrn
import stdnum.mx.curp
import stdnum.my.nric
import stdnum.nl.bsn
import stdnum.no.fodselsnummer
import stdnum.pk.cnic
import stdnum.pl.pesel
import stdnum.pt.nif
import stdnum.ro.cnp
import stdnum.se.personnummer
import stdnum.th.pin
import stdnum.tr.tckimlik
import stdnum.us.itin
import stdnum.us.ssn
import stdnum.za.idnr
from stdnum.exceptions import ValidationError

from strop.curate.clean.personal.spans import Kind, Span, said_before


@dataclass(frozen=True, slots=True)
class Scheme:
    r"""How one state numbers its people.

    `Scheme(r"\d{9}", stdnum.nl.bsn.is_valid, "bsn|burgerservicenummer")`: nine digits that pass
    the Dutch check, shortly after one of these words. Without words the shape says enough.
    """

    shape: str
    valid: Callable[[str], bool]
    words: str = ""
    kind: Kind = "national_id"


def _insurance(number: str) -> bool:
    """The prefixes that are given out; a British insurance number has no check digit."""
    return number[:2].upper() not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")


def _resident(number: str) -> bool:
    """Date of birth and check digit; the library's look-up of the county fails for some numbers."""
    try:
        stdnum.cn.ric.get_birth_date(number)
    except ValidationError:
        return False
    return stdnum.cn.ric.calc_check_digit(number) == number[-1].upper()


SCHEMES: dict[str, Scheme] = {
    "us social security": Scheme(r"\d{3}-\d\d-\d{4}", stdnum.us.ssn.is_valid, kind="ssn"),
    "us social security, no hyphens": Scheme(
        r"\d{3}([ .]?)\d\d\1\d{4}", stdnum.us.ssn.is_valid, "ssn|social security|social", "ssn"
    ),
    "us taxpayer (ITIN)": Scheme(r"9\d\d-\d\d-\d{4}", stdnum.us.itin.is_valid),
    "ar CUIT": Scheme(r"\d\d-\d{8}-\d", stdnum.ar.cuit.is_valid),
    "au tax file": Scheme(r"\d{3} ?\d{3} ?\d{2,3}", stdnum.au.tfn.is_valid, "tfn|tax file"),
    "be national": Scheme(r"\d\d\.\d\d\.\d\d-\d{3}\.\d\d", stdnum.be.nn.is_valid),
    "bg EGN": Scheme(r"\d{10}", stdnum.bg.egn.is_valid, "egn|егн"),
    "br CPF": Scheme(r"\d{3}\.\d{3}\.\d{3}-\d\d", stdnum.br.cpf.is_valid),
    "br CPF, bare": Scheme(r"\d{11}", stdnum.br.cpf.is_valid, "cpf"),
    "ca social insurance": Scheme(
        r"\d{3}([ -]?)\d{3}\1\d{3}", stdnum.ca.sin.is_valid, "sin|nas|social insurance"
    ),
    "ch AHV": Scheme(r"756(\.?)\d{4}\1\d{4}\1\d\d", stdnum.ch.ssn.is_valid),
    "cl RUT": Scheme(r"\d{1,2}\.\d{3}\.\d{3}-[\dkK]", stdnum.cl.rut.is_valid),
    "cn resident": Scheme(r"[1-9]\d{16}[\dXx]", _resident),
    "cz, sk birth": Scheme(r"\d{6}/\d{3,4}", stdnum.cz.rc.is_valid),
    "de tax": Scheme(
        r"\d\d ?\d{3} ?\d{3} ?\d{3}",
        stdnum.de.idnr.is_valid,
        "steuer-?id|steueridentifikationsnummer|idnr|steuernummer|tax id|tin",
    ),
    "dk CPR": Scheme(r"\d{6}-?\d{4}", stdnum.dk.cpr.is_valid, "cpr|cpr-nummer|personnummer"),
    "ee, lt personal": Scheme(r"[1-6]\d{10}", stdnum.ee.ik.is_valid, "isikukood|asmens kodas"),
    "es DNI": Scheme(r"\d{8}[ -]?[A-HJ-NP-TV-Za-hj-np-tv-z]", stdnum.es.dni.is_valid),
    "es NIE": Scheme(r"[XYZxyz]-?\d{7}-?[A-Za-z]", stdnum.es.nie.is_valid),
    "fi personal": Scheme(r"\d{6}[-+A-FU-Y]\d{3}[0-9A-Y]", stdnum.fi.hetu.is_valid),
    "fr social security": Scheme(
        r"[12] ?\d\d ?\d\d ?\d[\dAB] ?\d{3} ?\d{3} ?\d\d", stdnum.fr.nir.is_valid
    ),
    "gb national insurance": Scheme(
        r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]( ?)\d\d\1\d\d\1\d\d\1[A-D]", _insurance
    ),
    "gb NHS": Scheme(r"\d{3}([ -]?)\d{3}\1\d{4}", stdnum.gb.nhs.is_valid, "nhs"),
    "gr AMKA": Scheme(r"\d{11}", stdnum.gr.amka.is_valid, "amka|αμκα"),
    "hr OIB": Scheme(r"\d{11}", stdnum.hr.oib.is_valid, "oib"),
    "ie PPS": Scheme(r"\d{7}[A-W][ABHIW]?", stdnum.ie.pps.is_valid, "ppsn?"),
    "il identity": Scheme(r"\d{9}", stdnum.il.idnr.is_valid, "teudat zehut|israeli id|ת\\.?ז"),
    "in Aadhaar": Scheme(r"[2-9]\d{3}([ -])\d{4}\1\d{4}", stdnum.in_.aadhaar.is_valid),
    "in Aadhaar, bare": Scheme(r"[2-9]\d{11}", stdnum.in_.aadhaar.is_valid, "aadhaar|aadhar|uidai"),
    "in PAN": Scheme(
        r"[A-Z]{3}[ABCFGHJLPT][A-Z]\d{4}[A-Z]",
        stdnum.in_.pan.is_valid,
        "pan|permanent account|income tax",
    ),
    "it codice fiscale": Scheme(
        r"[A-Za-z]{6}\d\d[A-EHLMPRSTa-ehlmprst]\d\d[A-Za-z]\d{3}[A-Za-z]",
        stdnum.it.codicefiscale.is_valid,
    ),
    "jp my number": Scheme(
        r"\d{4}([ -]?)\d{4}\1\d{4}", stdnum.jp.in_.is_valid, "my number|マイナンバー|個人番号"
    ),
    "kr resident": Scheme(r"\d{6}-[1-8]\d{6}", stdnum.kr.rrn.is_valid),
    "mx CURP": Scheme(r"[A-Z]{4}\d{6}[HM][A-Z]{5}[A-Z0-9]\d", stdnum.mx.curp.is_valid),
    "my NRIC": Scheme(r"\d{6}-\d\d-\d{4}", stdnum.my.nric.is_valid),
    "nl BSN": Scheme(
        r"\d{4}\.?\d\d\.?\d{3}", stdnum.nl.bsn.is_valid, "bsn|burgerservicenummer|sofi"
    ),
    "no birth": Scheme(r"\d{6} ?\d{5}", stdnum.no.fodselsnummer.is_valid),
    "pk CNIC": Scheme(r"\d{5}-\d{7}-\d", stdnum.pk.cnic.is_valid),
    "pl PESEL": Scheme(r"\d{11}", stdnum.pl.pesel.is_valid, "pesel"),
    "pt tax": Scheme(r"\d{3} ?\d{3} ?\d{3}", stdnum.pt.nif.is_valid, "nif|contribuinte"),
    "ro CNP": Scheme(r"[1-9]\d{12}", stdnum.ro.cnp.is_valid, "cnp|cod numeric personal"),
    "se personal": Scheme(r"(?:\d\d)?\d{6}[-+]\d{4}", stdnum.se.personnummer.is_valid),
    "th identity": Scheme(r"\d-\d{4}-\d{5}-\d\d-\d", stdnum.th.pin.is_valid),
    "tr identity": Scheme(
        r"[1-9]\d{10}", stdnum.tr.tckimlik.is_valid, r"kimlik|tckn|t\.?c\.?(?: no)?"
    ),
    "za identity": Scheme(r"\d{13}", stdnum.za.idnr.is_valid, "id|identity|identity number"),
}
"""Without words: shapes and checks that ordinary numbers hardly meet. With words: bare digits."""

_BOUNDED = r"(?<![\w.@#$€£+-])(?<!\d[ /])(?:{})(?!\w|[-/.]\w)"


@dataclass(frozen=True, slots=True)
class _Reader:
    """A scheme, compiled."""

    scheme: Scheme
    shape: re.Pattern[str]
    words: re.Pattern[str] | None

    def spans(self, text: str) -> Iterator[Span]:
        for match in self.shape.finditer(text):
            called = self.words is None or said_before(text, match.start(), self.words)
            if called and self.scheme.valid(match.group()):
                yield Span(self.scheme.kind, match.start(), match.end())


def _words(words: str) -> re.Pattern[str]:
    """As whole words or parts of `a_name`, but not inside of a placeholder such as <SSN_1>."""
    return re.compile(rf"(?<![^\W_])(?:{words})(?![^\W_]|_\d+>)", re.IGNORECASE)


_READERS = [
    _Reader(
        scheme,
        re.compile(_BOUNDED.format(scheme.shape)),
        _words(scheme.words) if scheme.words else None,
    )
    for scheme in SCHEMES.values()
]
_BY_SHAPE = [reader for reader in _READERS if reader.words is None]
_BY_WORD = [reader for reader in _READERS if reader.words is not None]
_ANY_WORD = _words("|".join(reader.scheme.words for reader in _BY_WORD))


def national_ids(text: str) -> Iterator[Span]:
    """Every number of `SCHEMES`."""
    for reader in _BY_SHAPE:
        yield from reader.spans(text)
    if _ANY_WORD.search(text):
        for reader in _BY_WORD:
            yield from reader.spans(text)
