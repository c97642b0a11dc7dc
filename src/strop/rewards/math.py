"""Mathematical answers: equal as mathematics, not as text."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from functools import cache

from strop.rewards.answer.notation import DOTS, base_of, latex_of, split_unit
from strop.rewards.answer.number import (
    LONGEST,
    alike,
    is_percentage,
    quantities,
    quantity_of,
    same_value,
)
from strop.rewards.answer.read import final_answer, stated_answer
from strop.rewards.exact import golds_of, same_answer
from strop.sandbox.workers import Reply, Workers
from strop.text.parse import spoken
from strop.types import Text

_HUGE = re.compile(r"(?:\^|\*\*)\s?\{?\s?[+-]?\d{5}|\d{5}[)}]?\s?!")
_EITHER = re.compile(r"\\(?:lor|vee|land|wedge)(?![A-Za-z])")
_PROSE = re.compile(
    r"(?:\\text\{)?(?!(?:sin|cos|tan|log|exp|sqrt)\b)[A-Za-z]{3,}(?: [A-Za-z]+)*\}?"
)
_WORDS = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{3,}")
_GAPS = re.compile(r"(?<!\d)\s+|\s+(?!\d)")
_APART = re.compile(r"\d\s+\d")
_SET = re.compile(r"\\\{.*\\\}", re.DOTALL)
_BRACKETED = re.compile(r"[(\[].*[)\]]", re.DOTALL)

EASY = r"\frac{1}{3}"
"""An answer that can be compared with every answer that does not stall the comparison."""

WORDY = 3
"""An answer with this many words is a sentence, not a product of letters."""

SHORT = 200
"""A completion of at most this many characters may be an answer as a whole."""


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

    The final answer is found as `exact_answer` finds it. Numbers compare by value (`1,000 = 1000`,
    `1/2 = 0.5`, `50% = 0.5`, and `50% = 50`), units only if both have one. math-verify compares the
    rest (fractions, roots, intervals, sets, equations in LaTeX) in a process of its own that is
    killed after `seconds`.

    `None` if `answer` holds no answer, or one that stalls every comparison; a completion's answer
    that stalls the comparison is wrong.
    """
    golds = golds_of(answer, tag)
    said = [_said(spoken(c), gold, tag) for c, gold in zip(completions, golds, strict=True)]
    scores = [_by_value(given, gold) for given, gold in zip(said, golds, strict=True)]
    pairs: dict[int, tuple[str, str]] = {}
    for i, gold in enumerate(golds):
        if scores[i] is None and gold is not None:
            scores[i], pairs[i] = _by_notation(str(said[i]), gold)
    asked = [i for i in pairs if scores[i] is None]
    for i, score in zip(asked, _compared([pairs[i] for i in asked], seconds), strict=True):
        scores[i] = score
    return scores


def _said(text: str, gold: str | None, tag: str) -> str | None:
    """The final answer. A short text without a stated answer that is more than a number (`x^2 + 1`)
    is the answer as a whole."""
    stated = stated_answer(text, tag)
    if stated is not None or gold is None:
        return stated
    bare = text.strip()
    if bare and len(bare) <= SHORT and "\n" not in bare and quantity_of(gold) is None:
        return bare
    return final_answer(text, tag)


def _by_value(said: str | None, gold: str | None) -> float | None:
    """The verdict of comparing numbers or text; `None` if that decides nothing."""
    if gold is None:
        return None
    if not said or len(said) > LONGEST + len(gold):
        return 0.0
    if any(hint.search(said) and not hint.search(gold) for hint in (_HUGE, _EITHER)):
        return 0.0
    if same_answer(said, gold):
        return 1.0
    left, right = quantities(said, gold)
    if left is None or right is None:
        return None
    if not alike(left, right):
        return 0.0
    first, second = left.value, right.value
    if is_percentage(said) != is_percentage(gold):  # 50% is 0.5 too
        first, second = (first, second * 100) if is_percentage(said) else (first * 100, second)
    return float(same_value(first, second))


def _by_notation(said: str, gold: str) -> tuple[float | None, tuple[str, str]]:
    """The verdict of the notation, if any, and both answers in LaTeX without their units."""
    (left, unit), (right, other) = split_unit(latex_of(said)), split_unit(latex_of(gold))
    differ = unit is not None and other is not None and unit != other
    return 0.0 if differ else _by_form(left, right), (left, right)


def _by_form(said: str, gold: str) -> float | None:
    """The verdict of the form of two answers in LaTeX; `None` if that decides nothing."""
    if not said:
        return 0.0
    if _GAPS.sub("", said) == _GAPS.sub("", gold):
        return 1.0
    if _PROSE.fullmatch(gold):  # math-verify reads words as products of letters
        return 0.0
    if DOTS in said or DOTS in gold:  # the terms that the dots stand for are unknown
        return 0.0
    if len(_WORDS.findall(said)) >= WORDY > len(_WORDS.findall(gold)):
        return 0.0
    if _APART.search(said) or _APART.search(gold):  # math-verify reads 5 7 as 57
        return 0.0
    for one, other in ((said, gold), (gold, said)):
        if _SET.fullmatch(one) and _BRACKETED.fullmatch(other):
            return 0.0
    return _by_base(said, gold)


def _by_base(said: str, gold: str) -> float | None:
    """The verdict for numbers with a base; a number without one is in the other's base."""
    (digits, base), (others, other_base) = base_of(said), base_of(gold)
    if base is None and other_base is None:
        return None
    if base is None or other_base is None or base == other_base:
        return float(digits == others)
    try:
        return float(int(digits, base) == int(others, other_base))
    except ValueError:  # no such digits, or no such base
        return 0.0


def _compared(pairs: Sequence[tuple[str, str]], seconds: float) -> list[float | None]:
    """math-verify's scores of (answer, gold) pairs."""
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
    return Workers([sys.executable, "-m", "strop.rewards.answer.worker"])


def _score(reply: Reply) -> float:
    return float(reply.answer["equal"])
