"""Exact-answer rewards: find the final answer in a completion and compare it as a value."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from fractions import Fraction

from strop.text.parse import last_boxed, last_tag, spoken
from strop.types import Text

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(rf"(?:(?<![\w.)])-)?(?:{_DIGITS})(?:[eE][+-]?\d+|\s?/\s?\d+)?(?:\s?\\?%)?")
_VALUE = re.compile(
    r"(?P<top>[+-]?(?:(?:\d{1,3}(?:[, ]\d{3})+|\d+)(?:\.\d*)?|\.\d+))"
    r"(?:\s?/\s?(?P<under>\d+)|[eE](?P<e>[+-]?\d{1,4})"
    r"|\s?(?:\\times|\\cdot|\u00d7|\u00b7|\*)\s?10\^(?:\{(?P<power>[+-]?\d{1,4})\}|(?P<digit>[+-]?\d)))?"
)
_FRAC = re.compile(r"([+-]?)\\[dt]?frac\s?(?:\{\s?([+-]?\d+)\s?\}\s?\{\s?(\d+)\s?\}|(\d)\s?(\d))")
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\{([^{}\\]*)\}|\(([A-Za-z])\)")
_HASHES = re.compile(r"####[ \t]*(\S.*)")
_SENTENCE = re.compile(
    r"\banswer\s+is:?\s*(?:\$([^$\n]{1,999})\$(?!\d)|(\S+?)(?=[.!?]?(?:\s|$)))", re.IGNORECASE
)
_SIGNS = str.maketrans({"\u2212": "-", "\u2013": "-", "\u00a0": " ", "\u202f": " "})

LONGEST = 1000
"""Characters of an answer; a longer one is none."""


def exact_answer(
    prompts: Sequence[Text],
    completions: Sequence[Text],
    *,
    answer: Sequence[object],
    tag: str = "answer",
    **columns: object,
) -> list[float | None]:
    r"""1.0 where the completion's final answer equals `answer`, else 0.0.

    The final answer is the first of these that the completion has: the last `<tag>...</tag>`, the
    last `\boxed{...}`, the last line `#### N`, a line `A: N` at the end, the last "answer is ...",
    the last number, all of it. What stands in `<think>...</think>` does not count. `answer` is a
    value, or a worked solution that states one in such a way.

    Numbers compare by value (`1,000 = 1000.0`, `1/2 = 0.5`; a `%`, a degree or a currency sign
    does not count), other text after folding case and spaces. `None` where `answer` itself holds no
    answer: such a task cannot be judged.
    """
    return [
        judged(spoken(completion), gold, tag)
        for completion, gold in zip(completions, golds_of(answer, tag), strict=True)
    ]


def judged(text: str, gold: str | None, tag: str = "answer") -> float | None:
    """Whether a text answers `gold`: `judged("so 7", "7") == 1.0`."""
    if gold is None:
        return None
    given = stated_answer(text, tag)
    if given is not None:
        return float(same_answer(given, gold))
    return float(same_answer(final_answer(text, tag) or "", gold) or same_answer(text, gold))


def golds_of(answers: Sequence[object], tag: str) -> list[str | None]:
    """The answers themselves, or what worked solutions state; `None` where there is none."""
    texts = [_written(value) for value in answers]
    return [(stated_answer(text, tag) or text) or None for text in texts]


def final_answer(text: str, tag: str = "answer") -> str | None:
    """The answer a text ends with, or `None`: `final_answer("so 7.\n#### 12") == "12"`."""
    stated = stated_answer(text, tag)
    if stated is not None:
        return stated
    numbers = _NUMBER.findall(text.translate(_SIGNS))
    return numbers[-1] if numbers else None


def stated_answer(text: str, tag: str = "answer") -> str | None:
    """The answer that a text names as such: `stated_answer("we get 7") is None`."""
    tagged = last_tag(text, tag)
    if tagged is not None:
        return _unboxed(tagged)
    found = last_boxed(text)
    for look in (_last_hashes, _last_line, _last_sentence):
        found = look(text) if found is None else found
    return found


def same_answer(given: str, gold: str) -> bool:
    """Equal as numbers where both are numbers, else equal as folded text."""
    if len(given) > LONGEST + len(gold):
        return False
    left, right = value_of(given), value_of(gold)
    if left is not None and right is not None:
        return left == right
    return bool(_folded(given)) and _folded(given) == _folded(gold)


def value_of(text: str) -> Fraction | None:
    """The number that a text is: `value_of("$1,000.50") == Fraction(2001, 2)`.

    `None` for anything else, such as two numbers, and for one of more than a thousand digits.
    """
    if len(text) > LONGEST:
        return None
    bare = _bare(text)
    frac = _FRAC.fullmatch(bare)
    found = _VALUE.fullmatch(_slashed(frac) if frac else bare)
    if found is None:
        return None
    top = Fraction(found["top"].replace(",", "").replace(" ", ""))
    if found.lastgroup == "top":  # nothing below it and no power of ten: most numbers
        return top
    under = int(found["under"] or 1)
    ten = Fraction(10) ** int(found["e"] or found["power"] or found["digit"] or 0)
    return top / under * ten if under else None


def _bare(text: str) -> str:
    """A number without what may stand around it: dollars, percent, degrees, a full stop."""
    text = text.translate(_SIGNS).replace("{,}", ",").strip().strip("*_ ")
    text = re.sub(r"\\[,!; ]", " ", text)
    text = re.sub(r"\\[()]|\\?[$€£¥₹]|\\?%|\^\{?\\circ\}?|°", "", text)
    return " ".join(text.split()).rstrip(".").replace("- ", "-")


def _slashed(frac: re.Match[str]) -> str:
    sign, top, under, digit, other = frac.groups()
    return f"{sign}{top or digit}/{under or other}"


def _written(value: object) -> str:
    """A gold as text; a float as the short fraction it stands for (`1/3`, not its 17 digits)."""
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value).strip()
    if not math.isfinite(value):
        return ""
    near = Fraction(value).limit_denominator(10**6)
    return str(near) if math.isclose(near, value, rel_tol=1e-12) else repr(float(value))


def _unboxed(text: str) -> str:
    """`\\boxed{5}`, in dollars or not, as what it holds; any other text unchanged."""
    bare = text.strip().strip("$").strip()
    held = last_boxed(bare) if bare.startswith("\\boxed") and bare.endswith("}") else None
    return text if held is None or bare.count("\\boxed") > 1 else held


def _last_hashes(text: str) -> str | None:
    lines = _HASHES.findall(text)
    return lines[-1].strip() if lines else None


def _last_line(text: str) -> str | None:
    """What follows `A:` on the last line (further up it may be the first of many choices)."""
    line = text.rstrip().rsplit("\n", 1)[-1].strip()
    return line[2:].strip() or None if line.startswith("A:") else None


def _last_sentence(text: str) -> str | None:
    said = list(_SENTENCE.finditer(text))
    return (said[-1][1] or said[-1][2]).strip() if said else None


def _folded(text: str) -> str:
    bare = text.translate(_SIGNS).strip().strip("$*").strip().rstrip(".")
    wrapped = _WRAPPED.fullmatch(bare)
    return " ".join(((wrapped[1] or wrapped[2]) if wrapped else bare).casefold().split())
