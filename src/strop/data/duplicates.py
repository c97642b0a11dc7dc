"""When two texts say the same: equal after normalisation, or long and nearly equal."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from strop.text.parse import plain
from strop.types import Text

Words = tuple[str, ...]

ALIKE = 0.7
"""Jaccard similarity of word triples from which two long texts are near-duplicates."""
LONG = 13
"""Words from which a text is long. A shorter one is a duplicate only of an equal one: in "Solve 3x
+ 7 = 22" or "the capital of France" a single word makes another question."""
FREQUENT = 10
"""Texts that may share a piece before it counts as a template and says nothing (GPT-3 ignored
13-grams of more than 10 documents: Brown et al. 2020, arXiv 2005.14165, appendix C)."""

_CJK = "\u3040-\u30ff\u3400-\u9fff"
_LETTERS = r"[^\W\d_]{2}"
_WORD = re.compile(
    rf"[{_CJK}]|\d+(?:\.\d+)+|[^\W_{_CJK}]+|[+=<>^%]"
    rf"|(?<![*])(?<!{_LETTERS})(?<!{_LETTERS}\s)(?:\*\*?|[-/])(?!\s?{_LETTERS})"
)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_FOLDED = str.maketrans({"\u2212": "-", "\u2013": "-", "\u00d7": "*", "\u00f7": "/",
                         "'": None, "\u2019": None})  # fmt: skip


def words(text: str) -> Words:
    """A text as it is compared: `words("Solve: 3x - 1,000 = 5!")` is
    `("solve", "3x", "-", "1000", "=", "5")`.

    Case, spaces, apostrophes and punctuation do not count; numbers and the signs between them do. A
    hyphen or slash that touches a word is punctuation. A Chinese or Japanese character is a word of
    its own. A text of nothing but punctuation is one word.
    """
    folded = unicodedata.normalize("NFKC", text).casefold().translate(_FOLDED)
    return tuple(_WORD.findall(_THOUSANDS.sub("", folded))) or (text.strip(),)


def asked(prompt: Text) -> str:
    """What a prompt asks, in text or chat form; system messages say how to answer, not what."""
    if isinstance(prompt, str):
        return prompt
    return plain([m for m in prompt if m["role"] != "system"] or prompt)


def numbers(text: Words) -> Words:
    """The words with a digit, in order: `numbers(("solve", "3x", "=", "6")) == ("3x", "6")`."""
    return tuple(word for word in text if any(letter.isdigit() for letter in word))


def first_alike(texts: Sequence[Words]) -> list[int]:
    """For every text the index of the first one that it repeats; its own where it is new.

    Equal texts repeat each other. So do texts of at least `LONG` words with the same numbers whose
    word triples have a Jaccard similarity of at least `ALIKE`, once triples that stand in more than
    `FREQUENT` different texts are left out: those belong to a template, and what is left has to be
    long by itself. The similarity is exact, found through an index of the triples, whose lists are
    short for the same reason.
    """
    equal: dict[Words, int] = {}
    firsts = [equal.setdefault(text, place) for place, text in enumerate(texts)]
    long = [place for place in sorted(equal.values()) if len(texts[place]) >= LONG]
    if not long:
        return firsts
    repeated = _near([texts[place] for place in long])
    earlier = {long[place]: long[other] for place, other in repeated.items()}
    return [earlier.get(place, place) for place in firsts]


def alike_groups(texts: Sequence[Words]) -> list[int]:
    """For every text the index of the first one of its group: texts are in one group where a chain
    of repeats (as `first_alike` defines them) leads from one to the other.

    Unlike `first_alike`, where a text that repeats only a repeated one is new, the groups do not
    depend on the order of the texts, and no two texts of different groups repeat each other.
    """
    equal: dict[Words, int] = {}
    firsts = [equal.setdefault(text, place) for place, text in enumerate(texts)]
    long = [place for place in sorted(equal.values()) if len(texts[place]) >= LONG]
    root = list(range(len(texts)))

    def lead(place: int) -> int:
        while root[place] != place:
            root[place] = place = root[root[place]]
        return place

    for place, alike in _alike([texts[place] for place in long]) if long else ():
        for other in alike:
            one, two = sorted((lead(long[place]), lead(long[other])))
            root[two] = one
    return [lead(first) for first in firsts]


def _near(texts: Sequence[Words]) -> dict[int, int]:
    """Which of these different texts is alike to which earlier one that is alike to none."""
    repeated: dict[int, int] = {}
    for place, alike in _alike(texts):
        new = [other for other in alike if other not in repeated]
        if new:
            repeated[place] = min(new)
    return repeated


def _alike(texts: Sequence[Words]) -> Iterator[tuple[int, list[int]]]:
    """(place, the earlier texts that are alike to it), for these different texts."""
    sizes, shared = _habit_samples(texts)
    index: dict[int, list[int]] = {}
    for place, own in enumerate(shared):
        if sizes[place] < LONG - 2:
            continue
        common = Counter(other for triple in own for other in index.get(triple, ()))
        yield (
            place,
            [
                other
                for other, both in common.items()
                if both >= ALIKE * (sizes[place] + sizes[other] - both)
                and numbers(texts[other]) == numbers(texts[place])
            ],
        )
        for triple in own:
            index.setdefault(triple, []).append(place)


def _habit_samples(texts: Sequence[Words]) -> tuple[list[int], list[list[int]]]:
    """How many different triples each text has, templates aside, and which of them others have."""
    codes: dict[str, int] = {}
    ids = np.array([codes.setdefault(word, len(codes)) for text in texts for word in text])
    owner = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    pair = np.unique(ids[:-1] * len(codes) + ids[1:], return_inverse=True)[1]
    kinds, triple = np.unique(pair[:-1] * len(codes) + ids[2:], return_inverse=True)
    inside = owner[:-2] == owner[2:]
    once = np.unique(owner[:-2][inside] * len(kinds) + triple[inside])
    owner, triple = np.divmod(once, len(kinds))
    holders = np.bincount(triple, minlength=len(kinds))[triple]
    sizes = np.bincount(owner[holders <= FREQUENT], minlength=len(texts))
    shared: list[list[int]] = [[] for _ in texts]
    both = (holders > 1) & (holders <= FREQUENT)
    for place, code in zip(owner[both].tolist(), triple[both].tolist(), strict=True):
        shared[place].append(code)
    return sizes.tolist(), shared
