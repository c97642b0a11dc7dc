"""Which process takes which part of a step."""

from __future__ import annotations

from collections.abc import Sequence


def dealt(sizes: Sequence[float], processes: int) -> list[list[int]]:
    """The items of each process, in ascending order: the largest first, each to the process that
    has the least so far (LPT: Graham 1969), so that all have about as much to do.

    `dealt([5, 9, 4], 2) == [[1], [0, 2]]`. A pure function of the sizes: processes that all know
    them need not talk about it.
    """
    held = [0.0] * processes
    taken: list[list[int]] = [[] for _ in range(processes)]
    for item in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        least = min(range(processes), key=lambda rank: (held[rank], rank))
        held[least] += sizes[item]
        taken[least].append(item)
    return [sorted(items) for items in taken]


def share_of(count: int, rank: int, processes: int) -> range:
    """The items of process `rank` where all cost the same: consecutive ones, in order of rank, so
    that the processes' parts end to end are the whole. `share_of(7, 1, 2) == range(3, 7)`."""
    return range(rank * count // processes, (rank + 1) * count // processes)
