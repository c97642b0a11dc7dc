"""Exact-answer rewards: find the final answer in a completion and compare it as a value."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from fractions import Fraction

from strop.rewards.answer.number import LONGEST, quantities, same_quantity
from strop.rewards.answer.read import final_answer, from_last_number, stated_answer
from strop.text.parse import spoken
from strop.types import Text

_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\{([^{}\\]*)\}|\(([A-Za-z])\)")
_OPTION = re.compile(
    r"\(?(?P<letter>[A-J])(?:[).:]\)?\s+|\s+(?=\())(?P<what>\S(?:(?!\W[A-J][).]).)*)", re.DOTALL
)
_LETTER = re.compile(r"[A-J]|\([A-J]\)")
_SIGNS = str.maketrans({"\u2212": "-", "\u2013": "-", "\u00a0": " ", "\u202f": " "})


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
    last `\boxed{...}`, the last line `#### N`, a line `A: N` at the end, the last sentence that
    names an answer ("the answer is ...", "Answer: ..."), the last number, all of it, the end of
    it from its last number on. Text in `<think>...</think>` does not count. `answer` is a value, or
    a worked solution that states one in such a way.

    Numbers compare by value (`1,000 = 1000.0`, `7 3/4 = 31/4`; a `%`, a degree or a currency sign
    does not count, a unit or a name only if both have one), other text after folding case and
    spaces. `None` if `answer` itself holds no answer, because such a task cannot be scored.
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
    return float(
        same_answer(final_answer(text, tag) or "", gold)
        or same_answer(text, gold)
        # a number with several words ("672 grams of sugar") is no quantity: compared as it stands
        or same_answer(from_last_number(text), gold)
    )


def golds_of(answers: Sequence[object], tag: str) -> list[str | None]:
    """The answers themselves, or the answers of worked solutions; `None` for a solution without
    one."""
    texts = [_written(value) for value in answers]
    return [(stated_answer(text, tag) or text) or None for text in texts]


def same_answer(given: str, gold: str) -> bool:
    """Equal as numbers where both are numbers, else equal as folded text.

    An option with letter and words (`B) 72`) equals either of them.
    """
    if len(given) > LONGEST + len(gold):
        return False
    option = _OPTION.fullmatch(given.strip().strip("*$"))
    if option and not _OPTION.fullmatch(gold.strip()):
        given = option["letter"] if _LETTER.fullmatch(gold.strip()) else option["what"]
    left, right = quantities(given, gold)
    if left is not None and right is not None:
        return same_quantity(left, right)
    return bool(_folded(given)) and _folded(given) == _folded(gold)


def _written(value: object) -> str:
    """A gold answer as text; a float becomes the short fraction it stands for (`1/3`, not its 17
    digits)."""
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value).strip()
    if not math.isfinite(value):
        return ""
    near = Fraction(value).limit_denominator(10**6)
    return str(near) if math.isclose(near, value, rel_tol=1e-12) else repr(float(value))


def _folded(text: str) -> str:
    bare = text.translate(_SIGNS).strip().strip("$*").strip().rstrip(".")
    wrapped = _WRAPPED.fullmatch(bare)
    return " ".join(((wrapped[1] or wrapped[2]) if wrapped else bare).casefold().split())
