"""Finds for every text of a stream the first one that it repeats."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import xxhash

from strop.data.near.alike import LONG, OWN, Flags, Texts, alike
from strop.data.near.minhash import LIKELIEST, all_band_keys, candidates
from strop.data.near.pieces import Frequent, Words, has_digit, number_digests, triples, word_codes
from strop.data.near.ragged import I64, U64, Ragged

_TEXTS_AT_ONCE = 1 << 14
_WORDS_AT_ONCE = 1 << 18

Edges = dict[int, list[int]]
"""Text -> earlier texts that it is alike to."""


@dataclass(frozen=True, slots=True)
class Repeats:
    """What each text of a stream repeats: `Repeats(first=[0, 1, 0, 1], equal=[0, 1, 0, 3])` says
    that text 2 equals text 0 and that text 3 is a near-duplicate of text 1. A new text has its own
    number in both; `equal` covers only equal texts."""

    first: I64
    equal: I64

    @property
    def exact(self) -> Flags:
        """[texts] those that equal the one they repeat."""
        exact: Flags = (self.first != np.arange(len(self.first))) & (self.equal == self.first)
        return exact

    @property
    def exactly(self) -> Repeats:
        """What each text repeats, equal texts alone."""
        return Repeats(self.equal, self.equal)

    @property
    def near(self) -> Flags:
        """[texts] those that are near-duplicates of the one they repeat."""
        near: Flags = self.equal != self.first
        return near


def find_repeats(texts: Iterable[Words]) -> Repeats:
    """See `RepeatFinder`; the texts are read once, and none is kept."""
    finder = RepeatFinder()
    for text in texts:
        finder.add(text)
    return finder.found()


class RepeatFinder:
    """Finds for every text the first one that it repeats.

    Equal texts repeat each other, and so do texts of at least `LONG` words for which `alike` is
    true: MinHash gives candidates, and each is then compared exactly. A text repeats the first
    similar text that repeats none itself, so that no two kept texts are similar. The result is
    deterministic and the same on every machine.

    Memory: a 128-bit digest per new text, and about 500 bytes per long text. Hashed words and
    triples are in a temporary file.
    """

    def __init__(self) -> None:
        self._digests: dict[bytes, int] = {}
        self._first: list[I64] = []
        self._buffer = _Buffer()
        self._words, self._triples = Ragged(), Ragged()
        self._numbers: list[U64] = []
        self._long: list[I64] = []
        self._count = 0

    def add(self, text: Words) -> None:
        """The next text, as `words` gives it."""
        place = self._count
        self._count += 1
        joined = " ".join(text).encode(errors="surrogatepass")
        first = self._digests.setdefault(xxhash.xxh3_128_digest(joined), place)
        self._buffer.first.append(first)
        if first == place and len(text) >= LONG:
            self._buffer.long.append(place)
            self._buffer.add(text, joined)
        if self._buffer.full():
            self._flush()

    def _flush(self) -> None:
        buffer, self._buffer = self._buffer, _Buffer()
        self._first.append(np.array(buffer.first, dtype=np.int64))
        if not buffer.long:
            return
        codes = buffer.codes()
        lengths = np.array(buffer.lengths, dtype=np.int64)
        self._long.append(np.array(buffer.long, dtype=np.int64))
        self._numbers.append(number_digests(codes, lengths))
        self._words.append(codes, lengths)
        self._triples.append(*triples(codes, lengths))

    def found(self) -> Repeats:
        """What each text repeats; call it once, after the last one."""
        equal = self._equal()
        if not self._long:
            return Repeats(equal, equal)
        edges, texts = self._edges()
        return Repeats(self._led(equal, _first_ones(edges, texts)), equal)

    def groups(self) -> I64:
        """[texts] the first text of each one's group, where a chain of repeats leads from any text
        of a group to any other; call it instead of `found`. No two texts of different groups repeat
        each other, which `found` does not promise of texts that repeat something else."""
        equal = self._equal()
        return self._led(equal, _chained(self._edges()[0])) if self._long else equal

    def _equal(self) -> I64:
        self._flush()
        self._digests.clear()
        return np.concatenate(self._first)

    def _led(self, equal: I64, earlier: dict[int, int]) -> I64:
        """The first text of each, given the earlier one of long texts that have one."""
        long = np.concatenate(self._long)
        lead = np.arange(len(equal))
        lead[long[list(earlier)]] = long[list(earlier.values())]
        return lead[equal]

    def _edges(self) -> tuple[Edges, Texts]:
        """Which long text is alike to which earlier ones."""
        self._words.close()
        self._triples.close()
        numbers = np.concatenate(self._numbers)
        frequent = Frequent.of(self._triples)
        keys, rows, own = all_band_keys(self._triples, numbers, frequent, OWN)
        texts = Texts(self._words, self._triples, numbers, frequent, own)
        edges: Edges = {}
        for found in candidates(keys, rows):
            likeliest = found.rank < LIKELIEST
            same = _note(edges, texts, found.one[likeliest], found.two[likeliest])
            rest = ~likeliest & np.isin(found.one, same)
            _note(edges, texts, found.one[rest], found.two[rest])
        return edges, texts


class _Buffer:
    """Texts that wait to be hashed together."""

    def __init__(self) -> None:
        self.first: list[int] = []
        self.long: list[int] = []
        self.lengths: list[int] = []
        self.joined: list[bytes] = []
        self.marked: list[int] = []
        """Words with a digit that is not ASCII, by their place among all words."""
        self.words = 0

    def add(self, text: Words, joined: bytes) -> None:
        if not joined.isascii():
            self.marked += (self.words + nth for nth, word in enumerate(text) if has_digit(word))
        self.joined.append(joined)
        self.lengths.append(len(text))
        self.words += len(text)

    def full(self) -> bool:
        return len(self.first) >= _TEXTS_AT_ONCE or self.words >= _WORDS_AT_ONCE

    def codes(self) -> U64:
        codes = word_codes(b" ".join(self.joined))
        codes[self.marked] |= np.uint64(1)
        return codes


def _chained(edges: Edges) -> dict[int, int]:
    """Text -> the first one that a chain of edges leads to."""
    root: dict[int, int] = {}

    def lead(place: int) -> int:
        while (up := root.get(place, place)) != place:
            root[place] = root.get(up, up)
            place = root[place]
        return place

    for place, others in edges.items():
        for other in others:
            low, high = sorted((lead(place), lead(other)))
            root[high] = low
    return {place: lead(place) for place in root}


def _note(edges: Edges, texts: Texts, one: I64, two: I64) -> I64:
    """Compare these pairs and keep those that are alike; returns `one` of them."""
    same = alike(texts, one, two)
    one, two = one[same], two[same]
    later, earlier = np.maximum(one, two).tolist(), np.minimum(one, two).tolist()
    for place, other in zip(later, earlier, strict=True):
        edges.setdefault(place, []).append(other)
    return one


def _first_ones(edges: Edges, texts: Texts) -> dict[int, int]:
    """Text -> the first one that it repeats, of those that repeat none.

    A text that is alike only to texts that repeat others is compared with those others too, which
    MinHash or the bound on its candidates may have missed.
    """
    compared: set[tuple[int, int]] = set()
    while True:
        repeated: dict[int, int] = {}
        beyond: set[tuple[int, int]] = set()
        for place in sorted(edges):
            staying = [other for other in edges[place] if other not in repeated]
            if staying:
                repeated[place] = min(staying)
            else:
                beyond |= {(place, repeated[other]) for other in edges[place]}
        new = np.array(sorted(beyond - compared), dtype=np.int64)
        if not len(new):
            return repeated
        compared |= beyond
        _note(edges, texts, new[:, 0], new[:, 1])
