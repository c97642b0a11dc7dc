"""Decides whether two long texts are near-duplicates, by comparing the texts themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strop.data.near.pieces import BITS, FREQUENT, Frequent, owned, owners, sorted_set, unowned
from strop.data.near.ragged import I64, U64, Ragged, spans

ALIKE = 0.7
"""Two long texts with at least this Jaccard similarity of word triples are near-duplicates."""
LOOSE = 0.45
"""The threshold for texts with similar words, because each replaced word breaks three triples."""
SAME_WORDS = 0.8
"""Jaccard similarity of words that `LOOSE` requires."""
LONG = 13
"""A text with this many words is long. A shorter text is a duplicate only of an equal one, because
in "Solve 3x + 7 = 22" or "the capital of France" a single word changes the question."""
OWN = LONG - 2
"""Triples outside templates that a text needs, to be compared by these triples alone."""

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Texts:
    """Different long texts: `words` and `triples` hashed, a row each; `numbers` [texts] a hash of
    the words with a digit; `own` [texts] triples that are not frequent."""

    words: Ragged
    triples: Ragged
    numbers: U64
    frequent: Frequent
    own: I64


def alike(texts: Texts, one: I64, two: I64) -> Flags:
    """[pairs] whether these pairs are near-duplicates: equal numbers in equal order, and either

    - similar triples (see `_near`), where the difference is an edit and not another filling of a
      template (see `_edited`), or
    - similar triples once those of more than `FREQUENT` texts are left out, for texts that have at
      least `OWN` others.
    """
    found = np.zeros(len(one), dtype=bool)
    fitting = np.flatnonzero(texts.numbers[one] == texts.numbers[two])
    sizes = texts.triples.lengths
    for first, last in spans((sizes[one] + sizes[two])[fitting], 1 << 21):
        part = fitting[first:last]
        found[part] = _compared(texts, one[part], two[part])
    return found


def _compared(texts: Texts, one: I64, two: I64) -> Flags:
    pairs = len(one)
    shared, single = _matched(_keys(texts.triples, one), _keys(texts.triples, two))
    similar = _jaccard(shared, single, pairs)
    if not len(texts.frequent.pieces):
        return _near(texts, one, two, similar)
    texts_shared = texts.frequent.counts(unowned(shared))
    texts_single = texts.frequent.counts(unowned(single))
    similar[~_edited((owners(shared), texts_shared), (owners(single), texts_single), pairs)] = 0
    own = _jaccard(shared[texts_shared <= FREQUENT], single[texts_single <= FREQUENT], pairs)
    own[(texts.own[one] < OWN) | (texts.own[two] < OWN)] = 0
    return _near(texts, one, two, np.maximum(similar, own))


def _near(texts: Texts, one: I64, two: I64, similar: Floats) -> Flags:
    """Triples at least `ALIKE`, or at least `LOOSE` and words at least `SAME_WORDS`."""
    near = similar >= ALIKE
    doubtful = np.flatnonzero((similar >= LOOSE) & ~near)
    if len(doubtful):
        left, right = (_word_keys(texts.words, side[doubtful]) for side in (one, two))
        near[doubtful] = _jaccard(*_matched(left, right), len(doubtful)) >= SAME_WORDS
    return near


def _edited(shared: tuple[I64, I64], single: tuple[I64, I64], pairs: int) -> Flags:
    """[pairs] whether what differs is an edit, given (pair, texts that hold it) of each triple that
    both have and of each that one has.

    Of a text and its edited copies, most have what stood there before the edit: that is as frequent
    as the text around it. Of a template, every filling is rarer than the frame around it. The frame
    is taken to be as frequent as the upper quarter of what is shared, a triple to belong to it from
    two thirds of that, and a difference to be an edit where a fifth of its triples belong to it, or
    where the frame is no more frequent than `FREQUENT`.
    """
    whose, texts = shared
    ordered = np.sort(whose << 32 | texts) & 0xFFFFFFFF
    sizes = np.bincount(whose, minlength=pairs)
    upper = np.cumsum(sizes) - sizes + 3 * (sizes - 1) // 4
    frame = np.zeros(pairs, dtype=np.int64)
    frame[sizes > 0] = ordered[upper[sizes > 0]]
    whose, texts = single
    usual = np.bincount(whose[3 * texts >= 2 * frame[whose]], minlength=pairs)
    edited: Flags = (frame <= FREQUENT) | (5 * usual >= np.bincount(whose, minlength=pairs))
    return edited


def _keys(rows: Ragged, which: I64) -> U64:
    """The values of these rows with the place of the row in front, sorted where each row is."""
    values, lengths = rows.take(which)
    return owned(np.repeat(np.arange(len(which)), lengths), values)


def _word_keys(rows: Ragged, which: I64) -> U64:
    codes, lengths = rows.take(which)
    owner = np.repeat(np.arange(len(which)), lengths)
    return sorted_set(owned(owner, codes >> np.uint64(64 - BITS)))


def _matched(left: U64, right: U64) -> tuple[U64, U64]:
    """(what both hold, what one holds) of two sorted sets."""
    both = np.concatenate([left, right])
    both.sort(kind="stable")
    twice = np.zeros(len(both) + 1, dtype=bool)
    twice[1:-1] = both[1:] == both[:-1]
    return both[twice[1:]], both[~(twice[1:] | twice[:-1])]


def _jaccard(shared: U64, single: U64, pairs: int) -> Floats:
    """[pairs] Jaccard similarity; 0 for two empty sets."""
    common = np.bincount(owners(shared), minlength=pairs)
    every = common + np.bincount(owners(single), minlength=pairs)
    similarity: Floats = common / np.maximum(every, 1)
    return similarity
