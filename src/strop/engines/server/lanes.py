"""Samples of several adapters, decoded in turns."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from strop.engines.engine import Request
from strop.engines.local.continuous import Continuous
from strop.engines.local.engine import LocalEngine
from strop.model.adapters import only_adapter
from strop.types import Completion

T = TypeVar("T")

TURN = 4
"""Tokens of one lane until the next one's turn: to switch adapters costs part of a small model's
step."""


@dataclass(frozen=True, slots=True)
class Answered(Generic[T]):
    """What a job came to, and by what name the weights were called then."""

    what: T
    version: str


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """A sample of an adapter (`None` is the model alone), drawn while the weights have the name
    `version`, and where it goes."""

    request: Request
    adapter: str | None
    version: str
    result: Future[Answered[Completion]]


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """Samples of one adapter that decode together; or a single one that is asked again, `alone`."""

    adapter: str | None
    alone: bool
    decoding: Continuous[Wanted]


class Lanes:
    """A lane for each adapter, because a step runs with one adapter; all lanes get equal turns. A
    request joins its lane while others decode.

    Where a lane fails, each of its requests is asked again alone, one after the other, so that one
    takes no other with it: an answer depends on its request alone.
    """

    def __init__(self) -> None:
        self._lanes: list[Lane] = []
        self._again: deque[Wanted] = deque()

    @property
    def busy(self) -> bool:
        return bool(self._lanes or self._again)

    def add(self, engine: LocalEngine, wanted: Wanted) -> None:
        """Weights and adapters of the engine may not change before nothing is `busy`."""
        for lane in self._lanes:
            if lane.adapter == wanted.adapter and not lane.alone:
                lane.decoding.add([(wanted, wanted.request)])
                return
        self._open(engine, wanted, alone=False)

    def step(self, engine: LocalEngine) -> None:
        """A turn for every lane; an answer that ends is told at once, one that nobody waits for any
        more is given up."""
        if self._again and not any(lane.alone for lane in self._lanes):
            self._ask_again(engine, self._again.popleft())
        for lane in list(self._lanes):
            try:
                self._turn(engine, lane)
            except Exception as error:  # noqa: BLE001 - whatever it is, those who wait have to be told
                self._failed(lane, error)
            else:
                if not lane.decoding.busy:
                    self._lanes.remove(lane)

    def _open(self, engine: LocalEngine, wanted: Wanted, *, alone: bool) -> None:
        lane = Lane(wanted.adapter, alone, engine.open(wanted.adapter or ""))
        lane.decoding.add([(wanted, wanted.request)])
        self._lanes.append(lane)

    def _ask_again(self, engine: LocalEngine, wanted: Wanted) -> None:
        try:
            self._open(engine, wanted, alone=True)
        except Exception as error:  # noqa: BLE001 - whatever it is, the one who waits has to be told
            fail(wanted.result, error)

    def _turn(self, engine: LocalEngine, lane: Lane) -> None:
        for wanted in (*lane.decoding.decoding, *lane.decoding.waiting):
            if wanted.result.cancelled():
                lane.decoding.abort(wanted)
                wanted.result.set_running_or_notify_cancel()
        with only_adapter(engine.policy().model, lane.adapter):
            finished = lane.decoding.step(TURN)
        for wanted, completion in finished:
            if wanted.result.set_running_or_notify_cancel():
                wanted.result.set_result(Answered(completion, wanted.version))

    def _failed(self, lane: Lane, error: Exception) -> None:
        self._lanes.remove(lane)
        left = (*lane.decoding.decoding, *lane.decoding.waiting)
        if not lane.alone:
            self._again.extend(left)
            return
        for wanted in left:
            fail(wanted.result, error)


def fail(result: Future[Any], error: Exception) -> None:
    """Tell an error, unless nobody waits for it any more."""
    if result.set_running_or_notify_cancel():
        result.set_exception(error)
