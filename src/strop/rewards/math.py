"""Mathematical answers: equal as mathematics, not as text."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from functools import cache

from strop.rewards.exact import (
    LONGEST,
    final_answer,
    golds_of,
    same_answer,
    stated_answer,
    value_of,
)
from strop.sandbox.workers import Reply, Workers
from strop.text.parse import spoken
from strop.types import Text

_WORD = r"(?:[A-Za-z]{2,30}|[mgshlLKNJWVACF])(?:[²³]|\^\{?[23]\}?)?"
_WORDS = rf"{_WORD}(?:[ /]{_WORD}){{0,3}}"
_UNIT = re.compile(
    r"(?P<number>-?[\d.,/]{1,99})(?:"
    rf"(?:\s|\\[,; ]){{0,3}}\\(?:text|mathrm)\{{\s{{0,3}}(?P<wrapped>{_WORDS})\}}"
    rf"(?:\^\{{?(?P<exponent>[23])\}}?)?"
    rf"|(?:\s|\\[,; ]){{1,3}}(?P<apart>{_WORDS})"
    r"|(?P<joined>[cmkµ][mgL]|ml|min|hrs?|lbs?|oz|ft|mph|km/h|°[CF]))"
)
_MONEY = re.compile(r"\\?(?P<sign>[$€£])(?P<number>-?[\d.,]{1,99})")
_HUGE = re.compile(r"(?:\^|\*\*)\s?\{?\s?[+-]?\d{5}|\d{5}[)}]?\s?!")
_EITHER = re.compile(r"\\(?:lor|vee|land|wedge)(?![A-Za-z])")
_PROSE = re.compile(
    r"(?:\\text\{)?(?!(?:sin|cos|tan|log|exp|sqrt)\b)[A-Za-z]{3,}(?: [A-Za-z]+)*\}?"
)
CURRENCIES = {"$": "dollar", "€": "euro", "£": "pound"}
NO_UNITS = {"or", "and", "not", "to", "pi", "plus", "minus", "times", "over", "mod", "dozen",
            "hundred", "thousand", "million", "billion", "trillion"}  # fmt: skip
"""Words after a number that make it another answer."""

POWERS = str.maketrans("²³", "23")

EASY = r"\frac{1}{3}"
"""What can be compared with any answer that can be compared at all."""

SHORT = 200
"""Characters of a completion that may be an answer as a whole."""


def math_answer(
    prompts: Sequence[Text],
    completions: Sequence[Text],
    *,
    answer: Sequence[object],
    tag: str = "answer",
    seconds: float = 5.0,
    **columns: object,
) -> list[float | None]:
    r"""1.0 where the completion's final answer is mathematically equal to `answer`, else 0.0.

    The final answer is found as `exact_answer` finds it. Numbers compare by value
    (`1,000 = 1000`, `1/2 = 0.5`, `50% = 0.5`, and `50% = 50`), a unit only where both name one; the
    rest (fractions, roots, intervals, sets, equations in LaTeX) is read and compared by math-verify
    in a process of its own that is killed after `seconds`.

    `None` where `answer` holds no answer, or one that stalls the comparison with any other; a given
    answer that does so is wrong.
    """
    golds = golds_of(answer, tag)
    said = [_said(spoken(c), gold, tag) for c, gold in zip(completions, golds, strict=True)]
    scores = [_by_value(given, gold) for given, gold in zip(said, golds, strict=True)]
    open_ones = [i for i, gold in enumerate(golds) if gold is not None and scores[i] is None]
    pairs = [(str(said[i]), str(golds[i])) for i in open_ones]
    for i, score in zip(open_ones, _compared(pairs, seconds), strict=True):
        scores[i] = score
    return scores


def _said(text: str, gold: str | None, tag: str) -> str | None:
    """The final answer; a short text that states none and answers with more than a number is one
    itself (`x^2 + 1`)."""
    stated = stated_answer(text, tag)
    if stated is not None or gold is None:
        return stated
    bare = text.strip()
    if bare and len(bare) <= SHORT and "\n" not in bare and value_of(gold) is None:
        return bare
    return final_answer(text, tag)


def _by_value(said: str | None, gold: str | None) -> float | None:
    """A verdict where comparing numbers or text gives one."""
    if gold is None:
        return None
    if not said or len(said) > LONGEST + len(gold):
        return 0.0
    if any(hint.search(said) and not hint.search(gold) for hint in (_HUGE, _EITHER)):
        return 0.0
    said, gold = (re.sub(r"\s{0,3}percent\Z", "%", text.strip()) for text in (said, gold))
    left, right = _measured(said), _measured(gold)
    if left and right and left[1] != right[1]:
        return 0.0
    if same_answer(said, gold):
        return 1.0
    first = value_of(left[0] if left else said)
    second = value_of(right[0] if right else gold)
    if first is None or second is None:  # math-verify reads words as products of letters
        return 0.0 if _PROSE.fullmatch(gold) else None
    if ("%" in said) != ("%" in gold):
        first, second = (first, second * 100) if "%" in said else (first * 100, second)
    return float(first == second)


def _measured(text: str) -> tuple[str, str] | None:
    """Number and unit: `_measured("5 apples") == ("5", "apple")`, `_measured("5x")` is `None`."""
    money = _MONEY.fullmatch(text.strip())
    if money:
        return money["number"], CURRENCIES[money["sign"]]
    found = _UNIT.fullmatch(text.strip())
    if found is None:
        return None
    unit = found["wrapped"] or found["apart"] or found["joined"]
    unit = re.sub(r"[\^{}]", "", unit + (found["exponent"] or ""))
    words = unit.translate(POWERS).split()
    if NO_UNITS & {word.casefold() for word in words}:
        return None
    return found["number"], " ".join(word.removesuffix("s") or word for word in words)


def _compared(pairs: Sequence[tuple[str, str]], seconds: float) -> list[float | None]:
    """What math-verify says of (answer, gold) pairs."""
    if not pairs:
        return []
    replies = _comparers().ask([{"said": s, "gold": g} for s, g in pairs], seconds)
    stuck = [i for i, reply in enumerate(replies) if reply.failed is not None]
    scores = [None if reply.failed is not None else _score(reply) for reply in replies]
    if stuck:
        easy = [{"said": EASY, "gold": pairs[i][1]} for i in stuck]
        for i, reply in zip(stuck, _comparers().ask(easy, seconds), strict=True):
            scores[i] = 0.0 if reply.failed is None else None
    return scores


@cache
def _comparers() -> Workers:
    return Workers([sys.executable, "-m", "strop.rewards.math_worker"])


def _score(reply: Reply) -> float:
    return float(reply.answer["equal"])
