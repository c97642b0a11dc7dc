"""Finds the one answer that a text gives. A table in `docs/rewards.md` lists the forms."""

from __future__ import annotations

import re
from collections.abc import Callable

from strop.rewards.answer.clause import answer_sentence
from strop.rewards.answer.number import SCALES
from strop.text.parse import last_boxed, last_tag

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(
    rf"(?:(?<![\w.)])-)?(?:(?<![\w.,/])\d{{1,9}} \d{{1,9}}/\d{{1,9}}(?![\d/])|(?:{_DIGITS})"
    rf"(?:[eE][+-]?\d+|\s?/\s?\d+|[ \t](?i:{'|'.join(SCALES)})s?\b)?)(?:\s?\\?%)?"
)
_HASHES = re.compile(r"####[ \t]*(\S.*)")
_MINUS = str.maketrans({"\u2212": "-", "\u2013": "-", "\u00a0": " ", "\u202f": " "})


def final_answer(text: str, tag: str = "answer") -> str | None:
    """The answer a text ends with, or `None`: `final_answer("so 7.\\n#### 12") == "12"`."""
    stated = stated_answer(text, tag)
    if stated is not None:
        return stated
    numbers = _NUMBER.findall(text.translate(_MINUS))
    return numbers[-1] if numbers else None


def from_last_number(text: str) -> str:
    """The end of a text from its last number on: `"672 grams of sugar"`; all of it without one."""
    places = [found.start() for found in _NUMBER.finditer(text.translate(_MINUS))]
    return text[places[-1] :] if places else text


def stated_answer(text: str, tag: str = "answer") -> str | None:
    """The answer that a text names as such: `stated_answer("we get 7") is None`.

    `""` if it only says what the answer is not.
    """
    tagged = last_tag(text, tag)
    if tagged is None:
        tagged = _several_tagged(text, tag)
    if tagged is not None:
        return _unboxed(tagged)
    looks: tuple[Callable[[str], str | None], ...] = (
        last_boxed, _last_hashes, _last_line, answer_sentence,
    )  # fmt: skip
    for look in looks:
        found = look(text)
        if found is not None:
            return found
    return None


def _several_tagged(text: str, tag: str) -> str | None:
    """All that stands in tags that are nested or closed twice, as one: `<a><a>5</a>or 6</a>` names
    no single answer."""
    opening, closing = f"<{tag}>", f"</{tag}>"
    start, end = text.find(opening), text.rfind(closing)
    if not 0 <= start < end:
        return None
    return " ".join(text[start:end].replace(opening, " ").replace(closing, " ").split())


def _unboxed(text: str) -> str:
    """The content of `\\boxed{5}`, with or without dollar signs; any other text unchanged."""
    bare = text.strip().strip("$").strip()
    held = last_boxed(bare) if bare.startswith("\\boxed") and bare.endswith("}") else None
    return text if held is None or bare.count("\\boxed") > 1 else held


def _last_hashes(text: str) -> str | None:
    lines = _HASHES.findall(text)
    return lines[-1].strip() if lines else None


def _last_line(text: str) -> str | None:
    """The text after `A:` on the last line (on earlier lines `A:` may be the first of several
    choices)."""
    line = text.rstrip().rsplit("\n", 1)[-1].strip()
    return line[2:].strip() or None if line.startswith("A:") else None
