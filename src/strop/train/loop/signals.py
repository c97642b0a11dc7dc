"""SIGTERM and SIGINT end a run at the next point where no work is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType

from strop.errors import StoppedBySignal


class Interrupted(BaseException):
    """Raised by a signal inside `interruptible`. It is no `Exception`, so that no reward can catch
    it."""


class Signals:
    """The first signal that arrived, and whether the current work may be interrupted."""

    def __init__(self, *, between_steps: bool) -> None:
        self.number: int | None = None
        self.between_steps = between_steps
        self.interruptible = 0

    def receive(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            os._exit(128 + number)
        self.number = number
        self.stop_here()

    def stop_here(self) -> None:
        """Raise `Interrupted` if a signal came and the current work may be interrupted."""
        if self.number is not None and self.interruptible and not self.between_steps:
            raise Interrupted


@contextmanager
def watched(*, between_steps: bool = False) -> Iterator[Signals]:
    """Note the first SIGTERM or SIGINT; a second one exits at once. Only `between_steps`, nothing
    is interrupted: several processes end after the same step.

    Raises `StoppedBySignal` where a signal interrupted the work before the first step.
    """
    signals = Signals(between_steps=between_steps)
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, signals.receive) for number in numbers}
    token = _current.set(signals)
    try:
        yield signals
    except Interrupted:
        assert signals.number is not None
        raise StoppedBySignal(signals.number, None) from None
    finally:
        _current.reset(token)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """A signal may interrupt the block, which must change neither weights nor running
    statistics."""
    signals = _current.get()
    if signals is None:
        yield
        return
    signals.interruptible += 1
    try:
        signals.stop_here()
        yield
    finally:
        signals.interruptible -= 1


_current: ContextVar[Signals | None] = ContextVar("current", default=None)
