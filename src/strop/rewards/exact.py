"""Exact-answer rewards: find the final answer in a completion and compare it as a value."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from strop.text.parse import last_boxed, last_tag, plain
from strop.types import Text

_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s*/\s*\d+)?|-?\.\d+")
_HASHES = re.compile(r"####\s*(.+)")


def exact_answer(
    prompts: Sequence[Text],
    completions: Sequence[Text],
    *,
    answer: Sequence[object],
    tag: str = "answer",
    **columns: object,
) -> list[float | None]:
    """1.0 where the completion's final answer equals `answer`, else 0.0.

    The final answer is the first of these that the completion has: the last `<tag>...</tag>`, the
    last `\\boxed{...}`, the last `#### N` line, the last number. Numbers compare by value
    (`1,000 == 1000.0`, `1/2 == 0.5`), other text after folding case and spaces. `None` where
    `answer` itself holds no answer: such a task cannot be judged.
    """
    golds = ["" if gold is None else str(gold) for gold in answer]
    expected = [final_answer(gold, tag) or gold.strip() for gold in golds]
    said = [final_answer(plain(completion), tag) for completion in completions]
    return [
        None if not gold else float(given is not None and same_answer(given, gold))
        for given, gold in zip(said, expected, strict=True)
    ]


def final_answer(text: str, tag: str = "answer") -> str | None:
    """The answer a text ends with, or `None`: `final_answer("so 7.\\n#### 12") == "12"`."""
    for found in (last_tag(text, tag), last_boxed(text), _last(_HASHES, text)):
        if found is not None:
            return found.strip()
    return _last(_NUMBER, text)


def same_answer(given: str, gold: str) -> bool:
    """Equal as numbers where both are numbers, else equal as folded text."""
    left, right = _value(given), _value(gold)
    if left is not None and right is not None:
        return left == right
    return _folded(given) == _folded(gold)


def _last(pattern: re.Pattern[str], text: str) -> str | None:
    matches = list(pattern.finditer(text))
    return matches[-1].group(matches[-1].lastindex or 0) if matches else None


def _value(text: str) -> Fraction | None:
    bare = re.sub(r"[\s,$%]", "", text.strip().rstrip("."))
    try:
        return Fraction(bare)
    except (ValueError, ZeroDivisionError):
        return None


def _folded(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")
