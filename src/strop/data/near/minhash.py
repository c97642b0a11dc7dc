"""Finds pairs of texts to compare: MinHash with bands (Broder 1997, On the resemblance and
containment of documents; Leskovec et al., Mining of Massive Datasets, section 3.4).

Numbers are part of the hash, so texts with different numbers never share a bucket: a million
questions of one template do not end in one bucket.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strop.data.near.pieces import FREQUENT, Frequent
from strop.data.near.ragged import I64, U64, Ragged

U32 = NDArray[np.uint32]

BANDS = 28
"""Bands of two hashes each: a pair of Jaccard similarity J meets with probability
1 - (1 - J^2)^28, which is 0.998 at 0.45, 0.9997 at 0.5 and 1 - 7e-9 at 0.7."""
EARLIEST = 16
"""A text is paired only with this many first texts of its bucket, since of many similar texts the
first one is kept."""
PAIRS = 32
"""Most texts that a text is compared with, those with the most shared bands first."""
LIKELIEST = 4
"""Texts that are compared first; if none of them is similar, no other is expected to be."""
_ODD = np.random.default_rng(0).integers(1 << 31, size=2 * BANDS).astype(np.uint32) * 2 + 1
_AT_ONCE = 1 << 15
_EARLIER, _ENTRY = np.uint64(32), np.uint64(38)
"""Bits below a pair's number of other bands, and below its entry."""
_LAST = np.uint64(0xFFFFFFFF)


def band_keys(pieces: U64, lengths: I64, numbers: U64) -> U32:
    """[bands, texts] the buckets of each text; no text may be empty."""
    starts = np.cumsum(lengths) - lengths
    salted = (pieces + np.repeat(numbers, lengths)) * np.uint64(0x9E3779B97F4A7C15)
    hashes = (salted >> np.uint64(32)).astype(np.uint32)
    lowest = [np.minimum.reduceat(hashes * odd, starts) for odd in _ODD]
    return np.stack([
        one * np.uint32(0x85EBCA6B) ^ (two + (one >> np.uint32(13)))
        for one, two in zip(lowest[::2], lowest[1::2], strict=True)
    ])  # fmt: skip


def all_band_keys(
    rows: Ragged, numbers: U64, frequent: Frequent, enough: int
) -> tuple[U32, I64, I64]:
    """(keys [bands, entries], whose they are [entries], frequent pieces left out: how many each
    text has left [texts]).

    Every text has an entry for all of its pieces. One that has at least `enough` besides frequent
    ones, and some frequent ones, has a second entry without those.
    """
    whole, own_keys, own_rows, left = [], [], [], []
    for first, values, lengths in rows.blocks(1 << 18):
        salts = numbers[first : first + len(lengths)]
        whole.append(band_keys(values, lengths, salts))
        rare = frequent.counts(values) <= FREQUENT
        counts = np.add.reduceat(rare.astype(np.int64), np.cumsum(lengths) - lengths)
        left.append(counts)
        again = (counts >= enough) & (counts < lengths)
        if again.any():
            kept = values[rare & np.repeat(again, lengths)]
            own_keys.append(band_keys(kept, counts[again], salts[again]))
            own_rows.append(first + np.flatnonzero(again))
    keys = np.concatenate([*whole, *own_keys], axis=1)
    return keys, np.concatenate([np.arange(len(rows)), *own_rows]), np.concatenate(left)


@dataclass(frozen=True, slots=True)
class _Buckets:
    """The entries of one band, sorted by key: `order` lists them, `place` is where each stands,
    `first` where its bucket begins."""

    order: NDArray[np.int32]
    place: NDArray[np.int32]
    first: NDArray[np.int32]

    @classmethod
    def of(cls, keys: U32) -> _Buckets:
        entries = np.arange(len(keys), dtype=np.uint64)
        ordered = np.sort(keys.astype(np.uint64) << _EARLIER | entries)
        order = (ordered & _LAST).astype(np.int32)
        place = np.empty_like(order)
        place[order] = np.arange(len(order), dtype=np.int32)
        ordered >>= _EARLIER
        begins = np.flatnonzero(np.diff(ordered, prepend=~ordered[:1]))
        sizes = np.diff(begins, append=len(order))
        return cls(order, place, np.repeat(begins, sizes).astype(np.int32)[place])

    def earlier(self, start: int, stop: int) -> U64:
        """Pairs of an entry from `start` to below `stop` and an earlier one of its bucket, as
        `entry << 32 | earlier`, entries counted from `start`."""
        entries = np.arange(stop - start)
        first, place = self.first[start:stop], self.place[start:stop]
        pairs = []
        for nth in range(EARLIEST):
            inside = first + nth < place
            entries, first, place = entries[inside], first[inside], place[inside]
            others = self.order[first + nth].astype(np.uint64)
            pairs.append(entries.astype(np.uint64) << _EARLIER | others)
        return np.concatenate(pairs)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Pairs to compare: `Candidates(one=[9, 9], two=[3, 4], rank=[0, 1])` are text 9 and the two
    that it meets in most bands."""

    one: I64
    two: I64
    rank: I64


def candidates(keys: U32, rows: I64) -> Iterator[Candidates]:
    """Texts that share a bucket in some band, those of some thousand entries at a time; `rows`
    [entries] says whose they are."""
    buckets = [_Buckets.of(band) for band in keys]
    for start in range(0, len(rows), _AT_ONCE):
        stop = min(start + _AT_ONCE, len(rows))
        met = np.concatenate([band.earlier(start, stop) for band in buckets])
        entry, earlier, rank = _ranked(met)
        one, two = rows[start + entry], rows[earlier]
        kept = (one != two) & (rank < PAIRS)
        yield Candidates(one[kept], two[kept], rank[kept])


def _ranked(met: U64) -> tuple[I64, I64, I64]:
    """(entry, earlier one, rank of their pair for this entry), given all meetings in bands."""
    met.sort()
    begins = np.flatnonzero(np.diff(met, prepend=~met[:1]))
    others = (BANDS - np.diff(begins, append=len(met))).astype(np.uint64)
    pairs = met[begins]
    pairs = np.sort((pairs >> _EARLIER) << _ENTRY | others << _EARLIER | pairs & _LAST)
    entries = (pairs >> _ENTRY).astype(np.int64)
    rank = np.arange(len(pairs)) - np.searchsorted(entries, entries)
    return entries, (pairs & _LAST).astype(np.int64), rank
