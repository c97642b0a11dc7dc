"""Rows of unequal length in a temporary file, so that only rows in use are in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from strop.files import temporary_space

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]


class Ragged:
    """Rows of 64-bit values: `rows.append(values=[7, 8, 9], lengths=[1, 2])` adds `[7]` and
    `[8, 9]`; `rows.take([1])` gives `([8, 9], [2])`. The file has no name and goes with its owner.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as its owner
        self._lengths: list[I64] = []
        self.starts: I64 = np.zeros(1, dtype=np.int64)
        """[rows + 1] where each row begins; whole after `close`."""

    def append(self, values: U64, lengths: I64) -> None:
        """Add rows; raises `OutputError` where the disk is full."""
        with temporary_space():
            self._file.write(values.tobytes())
        self._lengths.append(lengths)

    def close(self) -> None:
        """Call this after the last row, before reading the first one."""
        self._file.flush()
        lengths = np.concatenate([np.zeros(1, dtype=np.int64), *self._lengths])
        self.starts = np.cumsum(lengths)
        self._lengths = []

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> I64:
        return np.diff(self.starts)

    def blocks(self, at_once: int) -> Iterator[tuple[int, U64, I64]]:
        """(first row, values, lengths) of rows in order, about `at_once` values each time."""
        for first, last in spans(self.lengths, at_once):
            self._file.seek(8 * int(self.starts[first]))
            raw = self._file.read(8 * int(self.starts[last] - self.starts[first]))
            yield first, np.frombuffer(raw, dtype=np.uint64), np.diff(self.starts[first : last + 1])

    def take(self, rows: I64) -> tuple[U64, I64]:
        """Values and lengths of these rows. The file is mapped only for this call, so that the rows
        do not stay in memory."""
        lengths = self.starts[rows + 1] - self.starts[rows]
        if not lengths.sum():
            return np.empty(0, dtype=np.uint64), lengths
        ends = np.cumsum(lengths)
        places = np.repeat(self.starts[rows] - ends + lengths, lengths) + np.arange(ends[-1])
        return np.memmap(self._file, dtype=np.uint64, mode="r")[places], lengths


def spans(lengths: I64, at_once: int) -> Iterator[tuple[int, int]]:
    """(first, last + 1) of rows that go together: about `at_once` values, at least one row, and at
    most 32,768 rows."""
    ends = np.cumsum(lengths)
    first = 0
    while first < len(lengths):
        before = int(ends[first - 1]) if first else 0
        last = int(np.searchsorted(ends, before + at_once, side="right"))
        last = min(max(last, first + 1), first + (1 << 15), len(lengths))
        yield first, last
        first = last
