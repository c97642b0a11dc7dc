"""How long a run still takes, from the steps it has done."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median

STEPS = 20
"""The latest steps that a forecast is made from; nothing is said before so many were timed, because
fewer say little."""


@dataclass(slots=True)
class Remaining:
    """Told when every step ended and how long it took, says what is left:
    `Remaining().after(21, 100, now=52.0, took=2.4)`.

    A step is taken to last as long as the median of the latest `STEPS`: one long step moves a mean,
    and the steps of online runs grow shorter. What passes between steps (evals, checkpoints) comes
    rarely and at regular intervals, so that its mean over all steps is added. The first step is not
    counted, because it warms up.
    """

    latest: deque[float] = field(default_factory=lambda: deque(maxlen=STEPS))
    between: float = 0.0
    timed: int = 0
    ended: float | None = None

    def after(self, step: int, total: int, now: float, took: float) -> float | None:
        """Seconds to go after this step, which ended `now` and lasted `took` seconds; `None` until
        `STEPS` steps were timed."""
        if self.ended is not None:
            self.latest.append(took)
            self.between += max(0.0, now - self.ended - took)
            self.timed += 1
        self.ended = now
        if self.timed < STEPS:
            return None
        return (median(self.latest) + self.between / self.timed) * (total - step)


def spoken(seconds: float) -> str:
    """`"1 h 12 min"`, `"3 min 5 s"`, `"42 s"`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"
