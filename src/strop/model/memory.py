"""How this process treats freed memory."""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_ONE_GIB = 2**30


def keep_freed_memory() -> None:
    """Let glibc reuse freed tensors instead of returning them to the system after every operation.

    A training step frees and asks again for the same large buffers; by default each round trip
    faults every page anew. Does nothing outside glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, _ONE_GIB)
    libc.mallopt(_M_TRIM_THRESHOLD, _ONE_GIB)
