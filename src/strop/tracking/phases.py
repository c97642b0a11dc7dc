"""Phases of a step, timed by a stopwatch; without a stopwatch they cost nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

Phase = Literal[
    "data", "sampling", "reward", "forward", "backward", "optimizer", "evaluation", "idle"
]
"""`idle` is time outside all phases; `evaluation` (on held-out records) is never inside another."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Wall seconds, and CPU seconds over all cores: `Spent(2.0, cpu=3.0)` kept 1.5 cores busy."""

    seconds: float
    cpu: float

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.seconds + other.seconds, self.cpu + other.cpu)

    def over(self, steps: int) -> Spent:
        return Spent(self.seconds / steps, self.cpu / steps)

    def cores(self) -> float:
        return self.cpu / self.seconds if self.seconds else 0.0


def phase(name: Phase) -> AbstractContextManager[None]:
    """What runs inside is this phase of a step."""
    watch = _watch.get()
    return _UNTIMED if watch is None else watch.phase(name)


class Stopwatch:
    """Times the phases of what runs `with watch.running()`.

    Every instant belongs to one phase, the innermost, so that all phases add up to the whole.
    `synchronize` is called before the clocks are read (to wait for a device); `span` opens a
    context that marks the phase elsewhere, such as in a trace. Spans never overlap.
    """

    def __init__(
        self,
        *,
        wall: Callable[[], float] = time.perf_counter,
        cpu: Callable[[], float] = time.process_time,
        synchronize: Callable[[], None] = lambda: None,
        span: Callable[[Phase], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.wall, self.cpu, self.synchronize, self.span = wall, cpu, synchronize, span
        self.spent: dict[Phase, Spent] = {}
        self._now: Phase | None = None
        self._since = (0.0, 0.0)
        self._open = ExitStack()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time what is inside: `idle` until a phase begins."""
        token = _watch.set(self)
        try:
            with self.phase("idle"):
                yield
        finally:
            _watch.reset(token)

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        outer = self._now
        self._turn("evaluation" if outer == "evaluation" else name)
        try:
            yield
        finally:
            self._turn(outer)

    def _turn(self, name: Phase | None) -> None:
        """Charge the time since the last turn to the phase that ends here."""
        self.synchronize()
        wall, cpu = self.wall(), self.cpu()
        if self._now is not None:
            passed = Spent(wall - self._since[0], cpu - self._since[1])
            self.spent[self._now] = self.spent.get(self._now, Spent(0.0, 0.0)) + passed
        self._open.close()
        if name is not None:
            self._open.enter_context(self.span(name))
        self._now, self._since = name, (wall, cpu)


_watch: ContextVar[Stopwatch | None] = ContextVar("watch", default=None)
_UNTIMED: AbstractContextManager[None] = nullcontext()
