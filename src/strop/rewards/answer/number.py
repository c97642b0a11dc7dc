"""Reads numbers as people write them: value, unit, and the precision that a decimal needs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

LONGEST = 1000
"""Characters of an answer; a longer text is no answer."""

EXACT_DIGITS = 6
"""Significant digits with which a decimal may stand for a number without a finite decimal."""

SCALES = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9,
          "trillion": 10**12}  # fmt: skip

_PARTS = ("half", "halve", "third", "quarter", "fourth", "fifth", "sixth", "seventh", "eighth",
          "ninth", "tenth", "twelfth", "hundredth", "thousandth", "millionth")  # fmt: skip
NO_UNITS = {"or", "and", "not", "to", "by", "of", "pi", "plus", "minus", "times", "over", "mod",
            "squared", "cubed", "factorial", "maybe", "perhaps", "possibly", "sqrt", "sin", "cos",
            "tan", "log", "ln", "exp", "inf", "infinity", "choose", "divided", "multiplied",
            "point", *SCALES, *_PARTS, *(f"{part}s" for part in _PARTS)}  # fmt: skip
"""Words after a number that are no unit but change the answer."""

_PLAIN = re.compile(r"-?\d{1,18}")
_VALUE = re.compile(
    r"(?P<sign>[+-]?)(?:(?P<whole>\d+) (?P<part>\d+)/(?P<parts>\d+)"
    r"|(?P<top>(?:\d{1,3}(?:[, ]\d{3})+|\d+)(?:\.\d*)?|\.\d+)"
    r"(?:\s?/\s?(?P<under>\d+)|[eE](?P<e>[+-]?\d{1,4})"
    r"|\s?(?:\\times|\\cdot|[\u00d7\u00b7*])\s?10\^(?:\{(?P<power>[+-]?\d{1,4})\}"
    r"|(?P<digit>[+-]?\d)))?"
    rf"(?:\s(?P<scale>(?i:{'|'.join(SCALES)}))s?)?)"
)
_FRAC = re.compile(
    r"([+-]?)(\d*)\s?\\[dtc]?frac\s?(?:\{\s?([+-]?\d+)\s?\}\s?\{\s?(\d+)\s?\}|(\d)\s?(\d))"
)
_AROUND = re.compile(
    r"\\[()]|\\?[$€£¥₹]|\b(?:Rs\.?|USD|EUR|GBP|INR)(?![A-Za-z])|\\?%|\^\{?\\circ\}?|°"
)
_PERCENT = re.compile(
    r"\s{0,3}(?:\\text\{\s?)?\b(?:percentage|percent|per cent|pct)\.?\s?\}?\Z", re.IGNORECASE
)
_SCALE_TEXT = re.compile(rf"\s?\\text\{{\s?({'|'.join(SCALES)})s?\s?\}}")
_COMMA = re.compile(r"\s?\{\s?,\s?\}")
_NO_SPACE = re.compile(r"(?<!\\)\\!\s*")
_SPACE = re.compile(r"(?<!\\)\\[,;: ]|~|\\(?:q?quad|thinspace)(?![A-Za-z])")
_SIGNS = str.maketrans({"\u2212": "-", "\u2013": "-", "\u00a0": " ", "\u202f": " ", "\u2044": "/"})
_VULGAR = {"\u00bd": "1/2", "\u2153": "1/3", "\u2154": "2/3", "\u00bc": "1/4", "\u00be": "3/4",
           "\u2155": "1/5", "\u2156": "2/5", "\u2157": "3/5", "\u2158": "4/5", "\u2159": "1/6",
           "\u215a": "5/6", "\u215b": "1/8", "\u215c": "3/8", "\u215d": "5/8",
           "\u215e": "7/8"}  # fmt: skip
_VULGAR_SIGN = re.compile(f"(\\d)?([{''.join(_VULGAR)}])")

_WORD = r"(?:[A-Za-z]{2,30}|[mgshlLKNJWVACF]|[°][CF])(?:[²³]|\^\{?[23]\}?)?"
_WORDS = rf"{_WORD}(?:[ /]{_WORD}){{0,4}}"
_AMOUNT = (
    rf"-?[\d.,]{{1,99}}(?:\s?/\s?\d{{1,99}}|\s\d{{1,20}}/\d{{1,20}})?(?:\s(?i:{'|'.join(SCALES)}))?"
)
_UNIT = re.compile(
    rf"(?P<number>{_AMOUNT}|[+-]?\d{{0,20}}\\[dtc]?frac\{{\d{{1,99}}\}}\{{\d{{1,99}}\}})(?:"
    rf"\s{{0,3}}\\(?:text|mathrm|textbf|textrm|textnormal|mbox)\{{\s{{0,3}}(?P<wrapped>{_WORDS})\.?\s{{0,3}}\}}"
    rf"(?:\^\{{?(?P<exponent>[23])\}}?)?"
    rf"|\s{{1,3}}(?P<apart>{_WORDS})"
    r"|(?P<joined>[cmkµ][mgL]|ml|min|hrs?|lbs?|oz|ft|mph|km/h|°[CF])(?P<joined_exponent>[²³])?)"
)
_MONEY = re.compile(rf"\\?(?P<sign>[$€£])\s?(?P<number>{_AMOUNT})(?:\s(?P<word>[a-z]+))?")
_CURRENCIES = {"$": "dollar", "€": "euro", "£": "pound"}
_ONE_UNIT = {"feet": "foot", "ft": "foot", "inches": "inch", "cm": "centimeter", "mm": "millimeter",
             "m": "meter", "km": "kilometer", "centimetre": "centimeter", "metre": "meter",
             "kilometre": "kilometer", "millimetre": "millimeter", "kg": "kilogram", "g": "gram",
             "mg": "milligram", "l": "liter", "litre": "liter", "ml": "milliliter", "hr": "hour",
             "h": "hour", "min": "minute", "s": "second", "sec": "second", "lb": "pound",
             "oz": "ounce", "km/h": "kilometer/hour", "mph": "mile/hour"}  # fmt: skip
_POWERS = str.maketrans("²³", "23")
_PARENTHESES = re.compile(r"\([^(),]*\)")
_SIDES = re.compile(r"(?<![<>!=:\\])=(?!=)")
_NAME = re.compile(r"\\?[A-Za-z][\w' (){}\\]{0,60}")


_ARITHMETIC = re.compile(r"(?:[-+*/\d\s().^\u00d7\u00b7\u00f7$]|\\(?:times|cdot|div)(?![A-Za-z]))+")


@dataclass(frozen=True, slots=True)
class Quantity:
    """`quantity_of("x = 5 cm") == Quantity(Fraction(5), "centimeter", "x")`."""

    value: Fraction
    unit: str | None = None
    name: str | None = None


def quantities(given: str, gold: str) -> tuple[Quantity | None, Quantity | None]:
    """Two answers as numbers; an equation needs a name on one side unless the gold is no
    equation."""
    return quantity_of(given, "=" not in gold), quantity_of(gold)


def same_quantity(given: Quantity, gold: Quantity) -> bool:
    """Equal in value, and of one kind."""
    return alike(given, gold) and same_value(given.value, gold.value)


def alike(given: Quantity, gold: Quantity) -> bool:
    """Whether units and names agree, as far as both have one."""
    pairs = ((given.unit, gold.unit), (given.name, gold.name))
    return all(one == other for one, other in pairs if one and other)


def same_value(given: Fraction, gold: Fraction) -> bool:
    """Equal, or one is the other rounded or cut to a decimal of enough digits."""
    return given == gold or rounds(given, gold) or rounds(gold, given)


def rounds(decimal: Fraction, exact: Fraction) -> bool:
    """Whether a decimal is a number without a finite decimal, rounded or cut off.

    It needs `EXACT_DIGITS` significant digits, all of them right: 0.333333 is 1/3; 0.3333 and
    0.333334 are not, nor is 0.125001 1/8, which a decimal can say exactly.
    """
    places = _places(decimal)
    if places is None or _places(exact) is not None:
        return False
    if abs(decimal) * 10**places < 10 ** (EXACT_DIGITS - 1):
        return False
    short = abs(exact) - abs(decimal)
    step = Fraction(1, 10**places)
    return decimal * exact > 0 and (abs(short) <= step / 2 or 0 <= short < step)


def _places(number: Fraction) -> int | None:
    """Digits after the point; `None` if they never end."""
    rest, twos, fives = number.denominator, 0, 0
    twos = (rest & -rest).bit_length() - 1
    rest >>= twos
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    return max(twos, fives) if rest == 1 else None


@lru_cache(maxsize=4096)
def quantity_of(text: str, any_left: bool = False) -> Quantity | None:
    """A text's number with its unit and name; `None` if it has none.

    An equation stands for its last side if the other sides are a name or numbers (`x = 5`, `12 + 3
    = 15`; `5 = x` for its first side); with `any_left` they may be anything (`2x + z = 1`). An
    equation of different numbers (`x = 6 = 5`) has no number.
    """
    if len(text) > LONGEST:
        return None
    text = text.strip()
    if _PARENTHESES.fullmatch(text):
        text = text[1:-1].strip()
    if "=" not in text:
        return _amount(text)
    *lefts, last = (side.strip() for side in _SIDES.split(text.strip("$")))
    value = _amount(last)
    if value is None and len(lefts) == 1 and _NAME.fullmatch(last):
        lefts, value = [last], _amount(lefts[0])
    if value is None or not lefts or not all(_is_left(left, any_left) for left in lefts):
        return None
    known = [found for left in lefts if (found := _amount(left)) is not None]
    if any(not same_value(one.value, value.value) for one in known):
        return None
    names = ["".join(left.split()) for left in lefts if _NAME.fullmatch(left)]
    return Quantity(value.value, value.unit, names[0] if names else None)


def _is_left(side: str, any_left: bool) -> bool:
    if any_left:
        return bool(side) and not re.search(r"[,;<>]", side)
    return bool(_NAME.fullmatch(side) or _ARITHMETIC.fullmatch(side))


def _amount(text: str) -> Quantity | None:
    if _PLAIN.fullmatch(text):
        return Quantity(Fraction(int(text)))
    parts = measured(text)
    value = value_of(parts[0] if parts else text)
    return None if value is None else Quantity(value, parts[1] if parts else None)


def value_of(text: str) -> Fraction | None:
    """The number that a text denotes: `value_of("$1,000.50") == Fraction(2001, 2)`.

    `None` for anything else, such as two numbers, and for one of more than a thousand digits.
    """
    if len(text) > LONGEST:
        return None
    bare = _bare(text)
    frac = _FRAC.fullmatch(bare)
    found = _VALUE.fullmatch(_slashed(frac) if frac else bare)
    if found is None:
        return None
    sign = -1 if found["sign"] == "-" else 1
    if found["whole"]:
        part, parts = int(found["part"]), int(found["parts"])
        return sign * (int(found["whole"]) + Fraction(part, parts)) if part < parts else None
    top = sign * Fraction(found["top"].replace(",", "").replace(" ", ""))
    if found.lastgroup == "top":  # nothing below it and no power of ten: most numbers
        return top
    under = int(found["under"] or 1)
    ten = Fraction(10) ** int(found["e"] or found["power"] or found["digit"] or 0)
    return top / under * ten * SCALES.get((found["scale"] or "").lower(), 1) if under else None


def measured(text: str) -> tuple[str, str] | None:
    """Number and unit: `measured("5 apples") == ("5", "apple")`, `measured("5x")` is `None`."""
    text = spaced(text)
    money = _MONEY.fullmatch(text)
    if money and money["word"] not in NO_UNITS:
        return money["number"], _CURRENCIES[money["sign"]]
    found = _UNIT.fullmatch(text)
    if found is None:
        return None
    unit = found["wrapped"] or found["apart"] or found["joined"]
    unit += found["exponent"] or found["joined_exponent"] or ""
    words = re.sub(r"[\^{}]", "", unit).translate(_POWERS).split()
    if NO_UNITS & {word.casefold() for word in words}:
        return None
    return found["number"], " ".join(map(one_unit, words))


def is_percentage(text: str) -> bool:
    return spaced(text).rstrip("$. ").endswith("%")


def spaced(text: str) -> str:
    """A text with plain spaces and signs, and one spelling of percent, scales and `½`."""
    text = text.translate(_SIGNS).strip().strip("*_ ")
    if "{" in text:
        text = _COMMA.sub(",", text)
    if "\\" in text or "~" in text:
        text = _SPACE.sub(" ", _NO_SPACE.sub("", text))
    text = _SCALE_TEXT.sub(r" \1", _PERCENT.sub("%", text))
    text = _VULGAR_SIGN.sub(lambda m: f"{m[1]} {_VULGAR[m[2]]}" if m[1] else _VULGAR[m[2]], text)
    return " ".join(text.split())


def one_unit(word: str) -> str:
    """A unit in the singular and in full: `one_unit("cm") == "centimeter"`."""
    single = word.removesuffix("s") or word
    return _ONE_UNIT.get(word.casefold(), _ONE_UNIT.get(single.casefold(), single))


def _bare(text: str) -> str:
    """A number without dollar, percent and degree signs and full stop."""
    text = _AROUND.sub("", spaced(text))
    return " ".join(text.split()).rstrip(".").replace("- ", "-")


def _slashed(frac: re.Match[str]) -> str:
    sign, whole, top, under, digit, other = frac.groups()
    return f"{sign}{f'{whole} ' if whole else ''}{top or digit}/{under or other}"
