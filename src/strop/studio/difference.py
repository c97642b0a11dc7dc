"""What differs between two texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

PIECE = re.compile(r"\s*\S+|\s+")
MOST_PIECES = 600
MOST_LETTERS = 20_000
"""Characters of a text that are compared."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a text: `Stretch(" five", changed=True)`."""

    text: str
    changed: bool


def compared(one: Sequence[str], other: Sequence[str]) -> tuple[list[Stretch], list[Stretch]]:
    """Two texts as pieces, with what only one of them has; nothing is marked where one of them has
    more than `MOST_PIECES`, because to compare takes their product."""
    if max(len(one), len(other)) > MOST_PIECES:
        return [Stretch("".join(one), False)], [Stretch("".join(other), False)]
    left: list[Stretch] = []
    right: list[Stretch] = []
    for kind, a, b, c, d in SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        for into, part in ((left, one[a:b]), (right, other[c:d])):
            if part:
                into.append(Stretch("".join(part), kind != "equal"))
    return left, right


def words(text: str) -> list[str]:
    """The words of a text, each with the blanks before it."""
    return PIECE.findall(text)
