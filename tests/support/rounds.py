"""Holds the thread that draws, so that a test decides when a model's next token comes."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from strop.engines.local.continuous import Continuous
from strop.engines.server.held import Held


class Rounds:
    """Rounds of drawing: the first `free` go on, later ones wait until `go_on` is set. `reached` is
    set when one waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, free: int) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()
        self.count = 0
        plain = Continuous._round

        def held_up(decoding: Continuous[Any]) -> list[Any]:
            self.count += 1
            if self.count > free:
                self.reached.set()
                assert self.go_on.wait(30)
            return plain(decoding)

        monkeypatch.setattr(Continuous, "_round", held_up)


class Futures:
    """What was asked of a model that is held, as futures."""

    def __init__(self, held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
        self.futures: list[Any] = []
        plain = held.sample

        def noted(*given: Any) -> Any:
            self.futures.append(plain(*given))
            return self.futures[-1]

        monkeypatch.setattr(held, "sample", noted)

    def wait_until_cancelled(self) -> None:
        wait_for(lambda: bool(self.futures) and all(one.cancelled() for one in self.futures))


def wait_for(what: Any) -> None:
    """Until it is so; half a minute at most."""
    pause = threading.Event()
    for _ in range(3000):
        if what():
            return
        pause.wait(0.01)
    raise AssertionError("it did not come about")


def endless(held: Held) -> None:
    """Answers have the length that they may have."""
    held.engine._sampler.stop_ids = frozenset()
