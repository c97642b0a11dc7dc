"""Rewrites mathematics as people type it into LaTeX that math-verify can read."""

from __future__ import annotations

import re
from fractions import Fraction

from strop.rewards.answer.number import NO_UNITS, measured, one_unit, spaced

_SIGNS = {
    "\u221e": r"\infty ", "\u03c0": r"\pi ", "\u03b8": r"\theta ", "\u2264": r"\le ",
    "\u2265": r"\ge ", "\u2260": r"\ne ", "\u00d7": r"\times ", "\u00b7": r"\cdot ",
    "\u22c5": r"\cdot ", "\u00f7": "/", "\u00b1": r"\pm ", "\u222a": r"\cup ", "\u2229": r"\cap ",
    "\u2216": r"\setminus ", "\u2208": r"\in ", "\u2205": r"\emptyset ", "\u2148": "i",
    "\u2147": "e", "\u27e8": r"\langle ", "\u27e9": r"\rangle ", "\u2248": r"\approx ",
    "\u2026": r"\dots ", "\u22ef": r"\dots ", "\u2032": "'", "\u2019": "'", "\u211d": r"\mathbb{R}",
    "\u2124": r"\mathbb{Z}", "\u2115": r"\mathbb{N}", "\u211a": r"\mathbb{Q}",
    "\u03b1": r"\alpha ", "\u03b2": r"\beta ", "\u03bb": r"\lambda ", "\u03c6": r"\phi ",
    "<=": r"\le ", ">=": r"\ge ", "!=": r"\ne ", "==": "=", "+/-": r"\pm ", "**": "^",
    "\u00bd": r"\frac{1}{2}", "\u2153": r"\frac{1}{3}", "\u2154": r"\frac{2}{3}",
    "\u00bc": r"\frac{1}{4}", "\u00be": r"\frac{3}{4}", "\u2155": r"\frac{1}{5}",
    "\u2156": r"\frac{2}{5}", "\u2157": r"\frac{3}{5}", "\u2158": r"\frac{4}{5}",
    "\u2159": r"\frac{1}{6}", "\u215a": r"\frac{5}{6}", "\u215b": r"\frac{1}{8}",
    "\u215c": r"\frac{3}{8}", "\u215d": r"\frac{5}{8}", "\u215e": r"\frac{7}{8}",
}  # fmt: skip
_SIGN = re.compile("|".join(map(re.escape, _SIGNS)))
_RAISED = str.maketrans("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b\u207f",
                        "0123456789-n")  # fmt: skip
_RAISED_RUN = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207b\u207f]+")
_LOWERED = str.maketrans("\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089",
                         "0123456789")  # fmt: skip
_LOWERED_RUN = re.compile("[\u2080-\u2089]+")
_ROOT = re.compile("([\u221a\u221b])\\s?(\\d+(?:\\.\\d+)?|[A-Za-z](?![A-Za-z])|(?=[({\\\\]))")

_FONTS = re.compile(
    r"\\(?:mathrm|mathit|mathbf|mathsf|text|textrm|textit|operatorname|rm)\s*"
    r"(?:\{\s*([A-Za-z])\s*\}|([ei])(?![A-Za-z]))"
)
_SIZES = re.compile(
    r"\\(?:left|right|m?big[lr]?|Big[lr]?|bigg[lr]?|Bigg[lr]?|displaystyle|textstyle|limits)"
    r"(?![A-Za-z])"
)
_ANGLES = re.compile(r"\\(?:([lr])angle)(?![A-Za-z])")
_WORDS = re.compile(
    r"\\(?:text|mathrm|operatorname|begin|end)\s*\{[^{}]*\}|(?<![\\A-Za-z])(?P<word>pi|infinity|infty|inf|oo|sqrt|sin|cos|tan|cot|sec|csc"
    r"|arcsin|arccos|arctan|log|ln|exp|theta|alpha|beta|gamma|delta|lambda|sigma|omega|phi)"
    r"(?![A-Za-z])"
)
_LATEX = {"infinity": "infty", "inf": "infty", "oo": "infty"}
_PRIMES = re.compile(r"(?<=[A-Za-z}])('{1,3})|(?<=[A-Za-z}])\^\{?(\\prime){1}\}?")
_THOUSANDS = re.compile(r"(?<![\w.,/])\d{1,3}(?: \d{3})+(?![\w/])")
_MIXED = re.compile(r"(?<![\w.,/])(\d{1,9}) (\d{1,9})/(\d{1,9})(?![\w/])")
_BASE = re.compile(r"([0-9A-F]{1,60})_\{?\s?(\d{1,2})\s?\}?")
_REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar|dot)\s?\{(\d{1,30})\}")
_DOTS = re.compile(r"\\(?:ldots|cdots|dotsc|dotsb|dots)(?![A-Za-z])|\.{3,}")
_BARE_SET = re.compile(r"(?<![\\\w^}\]])\{([^{}]*,[^{}]*)\}")
_UNIT_TEXT = re.compile(
    r"(?P<number>.*[\w})])\s*\\(?:text|mathrm|textrm|textbf|textnormal|mbox)\s*"
    r"\{\s*(?P<unit>[A-Za-z][A-Za-z /]*)\.?\s*\}(?:\^\{?[23]\}?)?",
    re.DOTALL,
)
_UNIT_WORD = re.compile(
    r"(?P<number>.*(?:\d|\}|\\pi))\s*(?P<unit>cm|mm|km|kg|ml|mph|inches|feet|units)", re.DOTALL
)
_APPROX = re.compile(r"\\(?:approx|simeq)(?![A-Za-z])")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_TAKING = re.compile(r"\\(?:[dtc]?frac|sqrt|log_)(?![A-Za-z])|\^(?=\s?\()")

DOTS = r"\dots"
"""What every ellipsis becomes."""


def latex_of(text: str) -> str:
    r"""An answer as LaTeX with every argument in braces: `latex_of("√3/2") == r"\sqrt{3}/2"`."""
    if "matrix" not in text:  # where two backslashes begin a row
        text = re.sub(r"\\\\(?=[A-Za-z])", r"\\", text)
    text = _SIGN.sub(lambda sign: _SIGNS[sign[0]], text.strip().strip("$").strip())
    text = _ROOT.sub(_root, text)
    text = _RAISED_RUN.sub(lambda run: f"^{{{run[0].translate(_RAISED)}}}", text)
    text = _LOWERED_RUN.sub(lambda run: f"_{{{run[0].translate(_LOWERED)}}}", text)
    text = spaced(_SIZES.sub("", text)).rstrip(". ")
    text = _FONTS.sub(lambda font: font[1] or font[2], text)
    text = _ANGLES.sub(lambda angle: "(" if angle[1] == "l" else ")", text)
    text = _REPEATING.sub(_repeated, text)
    text = _THOUSANDS.sub(lambda digits: digits[0].replace(" ", ""), text)
    text = _MIXED.sub(r"\1\\frac{\2}{\3}", text)
    text = _DOTS.sub(lambda _: DOTS + " ", text)
    text = _WORDS.sub(_command, text)
    text = _PRIMES.sub(lambda p: "_{" + "prime" * len(p[1] or "'") + "}", text)
    text = re.sub(r"(?<!\\)%", r"\\%", _exact_side(braced(text)))
    return _BARE_SET.sub(r"\\{\1\\}", text).strip()


def split_unit(text: str) -> tuple[str, str | None]:
    r"""An answer and the unit after it: `(r"2\pi", "centimeter")` for `2\pi \text{ cm}`."""
    number = measured(text)
    if number:
        return number
    found = _UNIT_TEXT.fullmatch(text) or _UNIT_WORD.fullmatch(text)
    words = found["unit"].split() if found else []
    if not found or NO_UNITS & set(words) or {"if", "otherwise", "only"} & set(words):
        return text, None
    return found["number"], " ".join(map(one_unit, words))


def base_of(text: str) -> tuple[str, int | None]:
    r"""Digits and the base they are in: `base_of("101_2") == ("101", 2)`; no base is `None`."""
    found = _BASE.fullmatch(text.replace(r"\text{", "").replace(" ", ""))
    return (found[1], int(found[2])) if found else (text, None)


def braced(text: str) -> str:
    r"""`\frac`, `\sqrt`, `\log_` and powers with braces around what they take, as TeX reads them.

    `braced(r"\frac ab c") == r"\frac{a}{b} c"`; `sqrt(3)` and `x^(2)` as their writers mean them.
    """
    made, at = [], 0
    for taking in _TAKING.finditer(text):
        if taking.start() < at:  # inside an argument that is already written
            continue
        made.append(text[at : taking.start()])
        at = taking.end()
        name = taking[0]
        if name == r"\sqrt" and text[at : at + 1] == "[":
            close = text.find("]", at) + 1
            name, at = (name + text[at:close], close) if close else (name, at)
        made.append(re.sub("^.[dtc]frac", r"\\frac", name))
        for _ in range(2 if name.endswith("frac") else 1):
            argument, at = _argument(text, at)
            made.append(f"{{{braced(argument)}}}")
    return "".join([*made, text[at:]])


def _argument(text: str, at: int) -> tuple[str, int]:
    """The argument of a command at `at`: a group, a command with its own arguments, or one
    character."""
    while text[at : at + 1] == " ":
        at += 1
    opening = text[at : at + 1]
    if opening in ("{", "("):
        end = _closing(text, at)
        return (text[at + 1 : end], end + 1) if end else (text[at:], len(text))
    command = _COMMAND.match(text, at)
    if command is None:
        return opening, at + 1
    end = command.end()
    while text[end : end + 1] == "{" and (close := _closing(text, end)):
        end = close + 1
    return text[at:end], end


def _closing(text: str, at: int) -> int | None:
    """The position of the bracket that closes the one at `at`."""
    pair, depth = ("{}" if text[at] == "{" else "()"), 0
    for place in range(at, len(text)):
        if text[place] in pair and text[place - 1 : place] != "\\":
            depth += 1 if text[place] == pair[0] else -1
            if not depth:
                return place
    return None


def _command(found: re.Match[str]) -> str:
    """`pi` as `\\pi`; words inside `\\text{...}` stay."""
    word = found["word"]
    return f"\\{_LATEX.get(word, word)} " if word else found[0]


def _root(root: re.Match[str]) -> str:
    order = "[3]" if root[1] == "\u221b" else ""
    return f"\\sqrt{order}{{{root[2]}}}" if root[2] else f"\\sqrt{order}"


def _repeated(found: re.Match[str]) -> str:
    r"""`0.1\overline{6}` as `\frac{1}{6}`."""
    whole, fixed, period = found.groups()
    head = Fraction(int((whole or "0") + fixed), 10 ** len(fixed))
    value = head + Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(fixed))
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


def _exact_side(text: str) -> str:
    r"""The exact side of an approximation: `\sqrt2` in `\sqrt2 \approx 1.41`; the right side after
    a name."""
    sides = [side.strip() for side in _APPROX.split(text)]
    return next((side for side in sides if not re.fullmatch(r"[A-Za-z]?", side)), text)
