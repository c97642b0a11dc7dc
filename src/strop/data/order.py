"""Which records make up which step: a pure function of (seed, epoch, position)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=4)
def permutation(count: int, seed: int, epoch: int) -> tuple[int, ...]:
    """The order of `count` records in one epoch."""
    stream = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return tuple(int(i) for i in stream.permutation(count))


def batch_indices(count: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Indices of step `step` (from 0). Epochs follow each other without a gap or a short batch."""
    first = step * batch_size
    places = range(first, first + batch_size)
    return [permutation(count, seed, place // count)[place % count] for place in places]
