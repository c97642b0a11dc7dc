"""The size from which a value belongs to the largest ones of a whole model, held nowhere at once.

Sizes of float32 numbers are in the order of their bits, so two histograms, of the upper and of the
lower half of the bits, find the exact one in two readings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch

HALF = 16
"""Bits of each histogram."""


def threshold(parts: Callable[[], Iterable[torch.Tensor]], share: float) -> float:
    """The size of the k-th largest value of all parts together, k being `share` of them, at least
    one; `parts` is called twice and gives float32 tensors of any shape."""
    upper, count = torch.zeros(1 << HALF, dtype=torch.int64), 0
    for part in parts():
        bits = _bits(part)
        upper += torch.bincount(bits >> HALF, minlength=1 << HALF)
        count += bits.numel()
    wanted = max(1, math.ceil(share * count - 1e-9))
    high, left = _place(upper, wanted)
    lower = torch.zeros(1 << HALF, dtype=torch.int64)
    for part in parts():
        bits = _bits(part)
        lower += torch.bincount(bits[bits >> HALF == high] & 0xFFFF, minlength=1 << HALF)
    low, _ = _place(lower, left)
    found = torch.tensor([high << HALF | low], dtype=torch.int32).view(torch.float32)
    return float(found)


def _bits(part: torch.Tensor) -> torch.Tensor:
    """The bits of the sizes, as integers of the same order, [values]."""
    return part.abs().contiguous().view(torch.int32).flatten().long()


def _place(histogram: torch.Tensor, wanted: int) -> tuple[int, int]:
    """The bin that holds the `wanted`-th from above, and which of that bin it is."""
    above = histogram.flip(0).cumsum(0)
    nth = int(torch.searchsorted(above, wanted))
    before = int(above[nth - 1]) if nth else 0
    return len(histogram) - 1 - nth, wanted - before
