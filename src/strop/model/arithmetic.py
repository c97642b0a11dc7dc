"""Whether a processor computes in bfloat16 or only emulates it: found by measuring, not by name."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch

Precision = Literal["float32", "bfloat16"]

SIZE = 128
"""Rows of the square matrices that are multiplied: large enough for full speed, and done in less
than a slice of the scheduler, 0.03 to 2 milliseconds, also where bfloat16 is emulated."""

ROUNDS = 30
"""Measurements, of which the fastest counts: other work on the machine only adds time."""

EMULATED = 0.5
"""Below this share of float32's speed bfloat16 is emulated. Arithmetic units for it are at least as
fast as those for float32; emulation was measured at 0.2 (AVX-512) and 0.02 (AVX2)."""


@dataclass(frozen=True, slots=True)
class Speeds:
    """Matrix products in GFLOP/s: `Speeds(float32=125.0, bfloat16=26.2)`."""

    float32: float
    bfloat16: float

    @property
    def emulates_bfloat16(self) -> bool:
        return self.bfloat16 < EMULATED * self.float32

    def said(self) -> str:
        """`"26 GFLOP/s in bfloat16, 125 in float32"`."""
        return f"{self.bfloat16:.3g} GFLOP/s in bfloat16, {self.float32:.3g} in float32"


@lru_cache(maxsize=1)
def cpu_speeds() -> Speeds:
    """Measured once per process, on one thread (several threads would wait for each other on a
    shared machine); takes at most a tenth of a second."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(SIZE, SIZE, generator=generator)
    inputs = {torch.float32: matrix, torch.bfloat16: matrix.bfloat16()}
    fastest = dict.fromkeys(inputs, float("inf"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(ROUNDS):
            for dtype, values in inputs.items():
                began = time.perf_counter()
                torch.mm(values, values)
                fastest[dtype] = min(fastest[dtype], time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    operations = 2.0 * SIZE**3 / 1e9
    return Speeds(operations / fastest[torch.float32], operations / fastest[torch.bfloat16])


def emulates_bfloat16(device: str) -> bool:
    """Whether bfloat16 products on this device are slower than float32's; GPUs are not measured."""
    return device == "cpu" and cpu_speeds().emulates_bfloat16
