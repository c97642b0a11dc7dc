"""How often somebody is told: so many messages within so many seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from strop.recipe.notify import AtMost


class RateLimit:
    """A window that slides: `allows(now)` counts a message where there is room for it.

    `times` are those of messages that an earlier process sent, in seconds since 1970.
    """

    def __init__(self, at_most: AtMost | None, times: Iterable[float] = ()) -> None:
        self.at_most = at_most
        self.times = deque(sorted(times))
        self.held_back = 0
        """Messages without room since the last one that had it."""

    def allows(self, now: float) -> bool:
        if self.at_most is None:
            return True
        while self.times and self.times[0] <= now - self.at_most.seconds:
            self.times.popleft()
        if len(self.times) >= self.at_most.count:
            self.held_back += 1
            return False
        self.times.append(now)
        return True

    def taken_back(self) -> int:
        """How many were held back until now; they are counted anew from here."""
        held, self.held_back = self.held_back, 0
        return held
