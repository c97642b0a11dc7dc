"""Long sequences whose items are made on access."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, SupportsIndex, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

T_co = TypeVar("T_co", covariant=True)


class LazySequence(Sequence[T_co]):
    """A sequence that makes its items on access; a slice of it is a tuple."""

    @abstractmethod
    def at(self, index: int) -> T_co:
        """The item at `index`, with 0 <= index < length."""

    @overload
    def __getitem__(self, index: SupportsIndex) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T_co]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> T_co | Sequence[T_co]:
        places = range(len(self))[index]
        if isinstance(places, int):
            return self.at(places)
        return tuple(map(self.at, places))


class Chained(LazySequence[T_co]):
    """Sequences end to end: `Chained([(4, 5), (6,)])[2]` is 6."""

    def __init__(self, parts: Sequence[Sequence[T_co]]) -> None:
        self.parts = parts
        self.starts = [0, *accumulate(map(len, parts))]

    def __len__(self) -> int:
        return self.starts[-1]

    def at(self, index: int) -> T_co:
        part = bisect_right(self.starts, index) - 1
        return self.parts[part][index - self.starts[part]]


class Chosen(LazySequence[T_co]):
    """Some items of a sequence: `Chosen("abc", [2, 0])[0]` is `"c"`."""

    def __init__(
        self, items: Sequence[T_co], indices: Sequence[int] | NDArray[np.integer[Any]]
    ) -> None:
        self.items, self.indices = items, indices

    def __len__(self) -> int:
        return len(self.indices)

    def at(self, index: int) -> T_co:
        return self.items[self.indices[index]]
