"""Samples of several adapters, decoded in turns."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from strop.engines.engine import Request
from strop.engines.local.continuous import Continuous, Listed
from strop.engines.local.engine import LocalEngine
from strop.model.adapters import only_adapter
from strop.types import Completion

T = TypeVar("T")

TURN = 4
"""Tokens of one lane until the next one's turn, or until those that are told as they come: to
switch adapters, and to tell, costs part of a small model's step."""

LONG_TURN = 64
"""Tokens of a turn where there is one lane and nobody is told before the end."""


@dataclass(frozen=True, slots=True)
class Answered(Generic[T]):
    """What a job came to, and by what name the weights were called then."""

    what: T
    version: str


@dataclass(frozen=True, slots=True)
class Progress:
    """Tokens of an answer that were not told before: `Progress((5, 9), (-0.1, -2.4), ())`. With
    `top_logprobs` `likeliest` has the likeliest tokens at each place, most likely first."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    likeliest: tuple[Listed, ...]


def joined(told: Sequence[Progress]) -> Progress:
    """What was told of one answer in several parts, as one."""
    return Progress(
        tuple(i for one in told for i in one.ids),
        tuple(x for one in told for x in one.logprobs),
        tuple(place for one in told for place in one.likeliest),
    )


class Stream:
    """Tells the tokens of one answer, each once, as they are drawn."""

    def __init__(self, tell: Callable[[Progress], None]) -> None:
        self._tell = tell
        self._ids: list[int] = []
        self._logprobs: list[float] = []
        self._likeliest: list[Listed] = []

    @property
    def told(self) -> int:
        """How many tokens."""
        return len(self._ids)

    def goes_on(
        self, ids: tuple[int, ...], logprobs: tuple[float, ...], likeliest: tuple[Listed, ...]
    ) -> None:
        if ids:
            self._ids += ids
            self._logprobs += logprobs
            self._likeliest += likeliest
            self._tell(Progress(ids, logprobs, likeliest))

    def ends(self, made: Completion) -> Completion:
        """Tell what is left. The completion says what was told: an answer that was asked for a
        second time, after its lane failed, is rounded otherwise in the last bits."""
        told = self.told
        if made.ids[:told] != tuple(self._ids):
            raise RuntimeError(
                "an answer that was asked for again began otherwise than it was told"
            )
        listed = made.likeliest or ()
        self.goes_on(made.ids[told:], made.sampler_logprobs()[told:], listed[told:])
        likeliest = None if made.likeliest is None else tuple(self._likeliest)
        return replace(made, logprobs=tuple(self._logprobs), likeliest=likeliest)


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """A sample of an adapter (`None` is the model alone), drawn while the weights have the name
    `version`, where it goes, and who is told of its tokens before."""

    request: Request
    adapter: str | None
    version: str
    result: Future[Answered[Completion]]
    stream: Stream | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """Samples of one adapter that decode together; or a single one that is asked again, `alone`."""

    adapter: str | None
    alone: bool
    decoding: Continuous[Wanted]

    def wanted(self) -> list[Wanted]:
        """What was asked of it and is not answered."""
        return [*self.decoding.decoding, *self.decoding.waiting]

    def until_told(self) -> int:
        """Tokens of a turn: the first token of an answer is told when it is there."""
        streams = [wanted.stream for wanted in self.wanted() if wanted.stream]
        if any(not stream.told for stream in streams):
            return 1
        return TURN if streams else LONG_TURN


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

    def uses(self, adapter: str) -> bool:
        """Whether an answer of this adapter is not finished."""
        at_work = {lane.adapter for lane in self._lanes}
        return adapter in at_work or any(one.adapter == adapter for one in self._again)

    def add(self, engine: LocalEngine, wanted: Wanted) -> None:
        """The weights may not change before nothing is `busy`, and an adapter may not go before
        nothing `uses` it; others may come and go."""
        for lane in self._lanes:
            if lane.adapter == wanted.adapter and not lane.alone:
                lane.decoding.add([(wanted, wanted.request)])
                return
        self._open(engine, wanted, alone=False)

    def step(self, engine: LocalEngine, called: Callable[[], bool] = lambda: False) -> None:
        """A turn for every lane, which ends early where an answer ends or is called off, or when
        `called`; an answer that ends is told at once, one that was called off is given up."""
        if self._again and not any(lane.alone for lane in self._lanes):
            self._ask_again(engine, self._again.popleft())
        lanes = list(self._lanes)
        most = LONG_TURN if len(lanes) == 1 else TURN
        for lane in lanes:
            try:
                self._turn(engine, lane, most, called)
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

    def _turn(self, engine: LocalEngine, lane: Lane, most: int, called: Callable[[], bool]) -> None:
        for wanted in lane.wanted():
            if wanted.result.cancelled():
                lane.decoding.abort(wanted)
                wanted.result.set_running_or_notify_cancel()
        results = [wanted.result for wanted in lane.wanted()]

        def over() -> bool:
            return called() or any(result.cancelled() for result in results)

        with only_adapter(engine.policy().model, lane.adapter):
            finished = lane.decoding.step(min(most, lane.until_told()), over)
        self._tell(lane)
        for wanted, completion in finished:
            try:
                made = wanted.stream.ends(completion) if wanted.stream else completion
            except Exception as error:  # noqa: BLE001 - whatever it is, the one who waits has to be told
                fail(wanted.result, error)
                continue
            if wanted.result.set_running_or_notify_cancel():
                wanted.result.set_result(Answered(made, wanted.version))

    def _tell(self, lane: Lane) -> None:
        """Tell what was drawn of answers that go on; one that cannot be told is given up."""
        told = {one: one.stream.told for one in lane.decoding.decoding if one.stream}
        for wanted, ids, logprobs, likeliest in lane.decoding.drawn(told) if told else ():
            if wanted.stream is None or wanted.result.cancelled():
                continue
            try:
                wanted.stream.goes_on(ids, logprobs, likeliest)
            except Exception as error:  # noqa: BLE001 - whatever it is, the one who waits has to be told
                lane.decoding.abort(wanted)
                fail(wanted.result, error)

    def _failed(self, lane: Lane, error: Exception) -> None:
        self._lanes.remove(lane)
        left = lane.wanted()
        if not lane.alone:
            self._again.extend(left)
            return
        for wanted in left:
            fail(wanted.result, error)


def fail(result: Future[Any], error: Exception) -> None:
    """Tell an error, unless nobody waits for it any more."""
    if result.set_running_or_notify_cancel():
        result.set_exception(error)
