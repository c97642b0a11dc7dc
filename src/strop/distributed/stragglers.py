"""Notices a process that all others wait for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

WINDOW = 20
"""Steps that are looked at together."""

SHARE = 0.25
"""Share of the time that the others wait for one process, from which it is worth a word."""


class Stragglers:
    """Sees after each step how long every process has waited for others, in all, in seconds.

    Who waits least is the one that is waited for. Said once, so that a slow machine does not fill
    the log.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock, self.said = clock, False
        self.steps, self.since = 0, clock()
        self.before: Sequence[float] = ()

    def see(self, waited: Sequence[float]) -> str | None:
        """A warning, where one process has held up the others for the last `WINDOW` steps."""
        if not self.before:
            self._begin(waited)
            return None
        self.steps += 1
        if self.steps < WINDOW or self.said:
            return None
        seconds = self.clock() - self.since
        spent = [now - then for now, then in zip(waited, self.before, strict=True)]
        self._begin(waited)
        slow = min(range(len(spent)), key=lambda rank: spent[rank])
        others = [one for rank, one in enumerate(spent) if rank != slow]
        # the least patient of the others: two fast ones that wait for two slow ones are no fault
        held = (min(others) - spent[slow]) / seconds if others else 0.0
        if held < SHARE:
            return None
        self.said = True
        return (
            f"process {slow} is slow: the others waited {held:.0%} of the last {WINDOW} steps for "
            "it; look at what else its machine does"
        )

    def _begin(self, waited: Sequence[float]) -> None:
        self.before, self.steps, self.since = tuple(waited), 0, self.clock()
