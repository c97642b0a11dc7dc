"""Duplicate texts: equal after normalisation, or long and nearly equal."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from strop.data.near.alike import LONG
from strop.data.near.find import RepeatFinder, find_repeats
from strop.data.near.pieces import FREQUENT, Words, has_digit
from strop.text.parse import plain
from strop.types import Text

__all__ = ["FREQUENT", "LONG", "Words", "alike_groups", "asked", "first_alike", "numbers", "words"]

_CJK = "\u3040-\u30ff\u3400-\u9fff"
_LETTERS = r"[^\W\d_]{2}"
_WORD = re.compile(
    rf"[{_CJK}]|\d+(?:\.\d+)+|[^\W_{_CJK}]+|[+=<>^%]"
    rf"|(?<![*])(?<!{_LETTERS})(?<!{_LETTERS}\s)(?:\*\*?|[-/])(?!\s?{_LETTERS})"
)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_FOLDED = str.maketrans({"\u2212": "-", "\u2013": "-", "\u00d7": "*", "\u00f7": "/",
                         "'": None, "\u2019": None})  # fmt: skip
_BARE = str.maketrans({chr(code): " " for code in range(128)}
                      | {letter: letter for letter in "abcdefghijklmnopqrstuvwxyz0123456789.,"}
                      | dict.fromkeys("+=<>^%*-/", "+"))  # fmt: skip
"""Replaces ASCII punctuation by spaces, except signs and characters that may be inside a number."""


def words(text: str) -> Words:
    """A text's words for comparison: `words("Solve: 3x - 1,000 = 5!")` is `("solve", "3x", "-",
    "1000", "=", "5")`.

    Case, spaces, apostrophes and punctuation do not count; numbers and the signs between them do. A
    hyphen or slash that touches a word is punctuation. A Chinese or Japanese character is a word of
    its own. A text of nothing but punctuation is one word.
    """
    if text.isascii():
        folded = text.lower().replace("'", "")
        bare = folded.translate(_BARE).replace(". ", " ").replace(", ", " ")
        bare = bare.removesuffix(".")
        if "." not in bare and "," not in bare and "+" not in bare:
            return tuple(bare.split()) or (text.strip(),)
    else:
        folded = unicodedata.normalize("NFKC", text).casefold().translate(_FOLDED)
    if "," in folded:
        folded = _THOUSANDS.sub("", folded)
    return tuple(_WORD.findall(folded)) or (text.strip(),)


def asked(prompt: Text) -> str:
    """The question of a prompt, in text or chat form, without system messages, which say how to
    answer."""
    if isinstance(prompt, str):
        return prompt
    return plain([m for m in prompt if m["role"] != "system"] or prompt)


def numbers(text: Words) -> Words:
    """The words with a digit, in order: `numbers(("solve", "3x", "=", "6")) == ("3x", "6")`."""
    return tuple(word for word in text if has_digit(word))


def first_alike(texts: Sequence[Words]) -> list[int]:
    """For every text the index of the first one that it repeats; its own index if it is new.
    `strop.data.near.find.RepeatFinder` defines repeats."""
    first: list[int] = find_repeats(texts).first.tolist()
    return first


def alike_groups(texts: Sequence[Words]) -> list[int]:
    """For every text the index of the first one of its group: texts are in one group if a chain of
    repeats links them (see `RepeatFinder.groups`)."""
    finder = RepeatFinder()
    for text in texts:
        finder.add(text)
    groups: list[int] = finder.groups().tolist()
    return groups
