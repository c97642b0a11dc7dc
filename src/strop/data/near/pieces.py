"""Texts as sets of hashed word triples, and the triples that are too frequent to be informative.

A word's hash is the same in every process, so the results are reproducible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from strop.data.near.ragged import I64, U64, Ragged

Words = tuple[str, ...]

FREQUENT = 10
"""Texts that may share a piece before it counts as part of a template and is ignored (GPT-3 ignored
13-grams of more than 10 documents: Brown et al. 2020, arXiv 2005.14165, appendix C)."""

COUNTED = 7
"""Only pieces of at least this many texts are counted: two thirds of `FREQUENT`."""

BITS = 48
"""Bits of a piece; the 16 above them hold whose it is while pieces of many texts are sorted."""
_LOW: Final = np.uint64((1 << BITS) - 1)
_ONE: Final = np.uint64(1)
_SPACE: Final = ord(" ")
_START: Final = np.uint64(BITS - 20)
_MIX: Final = tuple(np.uint64(odd) for odd in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F,
                                               0x165667B19E3779F9, 0xD6E8FEB86659FD93))  # fmt: skip
_SORTED_AT_ONCE = 1 << 25


def has_digit(word: str) -> bool:
    return any(letter.isdigit() for letter in word)


def mixed(values: U64) -> U64:
    """Every value hashed again, so that sums of them are hashes of sets."""
    values = (values ^ (values >> np.uint64(29))) * _MIX[3]
    return values ^ (values >> np.uint64(32))


def word_codes(text: bytes) -> U64:
    """[words] a 64-bit hash of each word of a text in UTF-8, words separated by single spaces.

    The last bit says whether the word has an ASCII digit. A byte's share of the hash depends on its
    place in the word, and places repeat after 64.
    """
    letters = np.frombuffer(text, dtype=np.uint8)
    spaces = np.flatnonzero(letters == _SPACE)
    starts = np.concatenate([[0], spaces + 1])
    sizes = np.diff(starts, append=len(letters) + 1)
    places = np.arange(len(letters)) - np.repeat(starts, sizes)[:-1]
    hashed = _LETTERS[places & 63, letters]
    hashed[spaces] = 0
    codes = mixed(np.add.reduceat(hashed, starts) + sizes.astype(np.uint64))
    digits = letters - np.uint8(ord("0")) < 10
    return codes >> _ONE << _ONE | np.logical_or.reduceat(digits, starts)


def number_digests(codes: U64, lengths: I64) -> U64:
    """[texts] one hash of the words with a digit, in order."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    marked = np.flatnonzero(codes & _ONE)
    whose = owner[marked]
    nth = np.arange(len(marked)) - np.searchsorted(whose, whose)
    digests = np.zeros(len(lengths), dtype=np.uint64)
    np.add.at(digests, whose, mixed(codes[marked] + nth.astype(np.uint64) * _MIX[0]))
    return digests


def triples(codes: U64, lengths: I64) -> tuple[U64, I64]:
    """(pieces, how many of each text): its different word triples, sorted; at most 65,536 texts."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    inside = owner[:-2] == owner[2:]
    hashed = mixed(codes[:-2] * _MIX[0] + codes[1:-1] * _MIX[1] + codes[2:] * _MIX[2])
    keys = sorted_set(owned(owner[:-2][inside], hashed[inside] >> np.uint64(64 - BITS)))
    return unowned(keys), np.bincount(owners(keys), minlength=len(lengths))


def sorted_set(values: U64) -> U64:
    """The different values, sorted; several times as fast as `np.unique`, which hashes them."""
    values = np.sort(values)
    different: U64 = values[np.diff(values, prepend=~values[:1]) != 0]
    return different


def owned(owner: I64, pieces: U64) -> U64:
    """Pieces of many texts that can be sorted together: the owner in front of the piece."""
    return owner.astype(np.uint64) << np.uint64(BITS) | pieces


def owners(keys: U64) -> I64:
    return (keys >> np.uint64(BITS)).astype(np.int64)


def unowned(keys: U64) -> U64:
    return keys & _LOW


_LETTERS: Final = mixed(np.arange(1, 64 * 256 + 1, dtype=np.uint64) * _MIX[0]).reshape(64, 256)
"""[place in a word, byte] random numbers that are the same everywhere."""


@dataclass(frozen=True, slots=True)
class Frequent:
    """The pieces of at least `COUNTED` texts, sorted, and how many texts hold each:
    `Frequent(pieces=[12, 99], texts=[4000, 17])`."""

    pieces: U64
    texts: I64
    starts: NDArray[np.bool_]
    """[2^20] the first bits that some piece has: most others are told apart by them."""

    @classmethod
    def of(cls, rows: Ragged) -> Frequent:
        """Count the pieces of all texts, a range of their values at a time."""
        parts = 1 + int(rows.starts[-1]) // _SORTED_AT_ONCE
        edges = np.linspace(0, 1 << BITS, parts + 1).astype(np.uint64)
        counted = [_counted(rows, low, high) for low, high in pairwise(edges)]
        pieces, texts = (np.concatenate(part) for part in zip(*counted, strict=True))
        starts = np.zeros(1 << 20, dtype=bool)
        starts[pieces >> _START] = True
        return cls(pieces, texts, starts)

    def counts(self, pieces: U64) -> I64:
        """How many texts hold each of these; 0 for fewer than `COUNTED`."""
        counts = np.zeros(len(pieces), dtype=np.int64)
        likely = np.flatnonzero(self.starts[pieces >> _START])
        if len(likely):
            asked = pieces[likely]
            places = np.minimum(np.searchsorted(self.pieces, asked), len(self.pieces) - 1)
            counts[likely] = np.where(self.pieces[places] == asked, self.texts[places], 0)
        return counts


def _counted(rows: Ragged, low: np.uint64, high: np.uint64) -> tuple[U64, I64]:
    """Pieces from `low` to below `high` of at least `COUNTED` texts, and their counts."""
    kept: Sequence[U64] = [
        values[(values >= low) & (values < high)] for _, values, _ in rows.blocks(1 << 20)
    ]
    pieces = np.concatenate([np.empty(0, dtype=np.uint64), *kept])
    pieces.sort()
    begins = np.flatnonzero(np.diff(pieces, prepend=~pieces[:1]))
    counts = np.diff(begins, append=len(pieces))
    many = counts >= COUNTED
    return pieces[begins[many]], counts[many]
