"""How long a run still takes, from the steps it has done."""

from __future__ import annotations

from dataclasses import dataclass

STEPS = 20
"""Steps before anything is said: fewer say little where evals and long batches fall between."""


@dataclass(slots=True)
class Remaining:
    """Told the time of every step, says what is left: `Remaining().after(20, 100, now)`.

    The first step is not counted, because it warms up; all else is, evals and checkpoints
    between steps included, for they go on as they did.
    """

    first: tuple[int, float] | None = None

    def after(self, step: int, total: int, now: float) -> float | None:
        """Seconds to go after this step; `None` until `STEPS` steps were timed."""
        if self.first is None:
            self.first = (step, now)
        began, at = self.first
        if step - began < STEPS:
            return None
        return (now - at) / (step - began) * (total - step)


def spoken(seconds: float) -> str:
    """`"1 h 12 min"`, `"3 min 5 s"`, `"42 s"`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"
