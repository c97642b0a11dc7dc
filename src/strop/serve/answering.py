"""Draws the choices of a request, and says them as they come."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from strop.engines.engine import Request
from strop.engines.server.lanes import Answered, Progress
from strop.serve.exchange import Exchange
from strop.serve.models.version import Version
from strop.serve.protocol.speaking import Detokenizer, Speaker
from strop.text.speech import CLOSES, OPENS, Delta, Written
from strop.text.tools import MARKS
from strop.types import Completion

Came = Progress | Completion


@dataclass(frozen=True, slots=True)
class Piece:
    """What came of one choice: `Piece(0, (Delta("content", "x"),), progress)`. The last one of a
    choice has its `ended`."""

    index: int
    deltas: tuple[Delta, ...]
    progress: Progress
    ended: Ended | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """A choice that is done: its tokens, and the same as it is shown."""

    completion: Completion
    written: Written

    @property
    def finish(self) -> str:
        """OpenAI's reason: a call of a tool is one of its own."""
        return "tool_calls" if self.written.calls else self.completion.finish


@dataclass(slots=True)
class Timed:
    """Seconds from the request to the first token and to the end; `sampled` tokens were drawn in
    all, where more work than one answer was asked for."""

    first: float | None = None
    total: float = 0.0
    sampled: int | None = None

    def came(self, asked: Exchange) -> None:
        if self.first is None:
            self.first = time.perf_counter() - asked.began

    def ended(self, asked: Exchange) -> None:
        self.total = time.perf_counter() - asked.began


NOTHING = Progress((), (), ())


class Mail:
    """Takes what other threads tell to queues of one event loop. However much is told before the
    loop looks, it is woken once: to wake it takes as long as several operations of a small model's
    step, and a step tells something to every answer."""

    def __init__(self) -> None:
        self._told: deque[tuple[asyncio.Queue[Any], Any]] = deque()
        self._woken = False

    def put(self, loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[Any], what: Any) -> None:
        """From any thread, to a queue of this loop, whose mail this is."""
        self._told.append((queue, what))
        if not self._woken:
            self._woken = True
            loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._woken = False  # before it looks: what is told from now on wakes it again
        while self._told:
            queue, what = self._told.popleft()
            queue.put_nowait(what)


_MAIL: WeakKeyDictionary[asyncio.AbstractEventLoop, Mail] = WeakKeyDictionary()


async def drawn(version: Version, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, Came]]:
    """(place of the request, its new tokens or the whole), as they come. Who stops reading calls
    the rest off."""
    loop = asyncio.get_running_loop()
    mail = _MAIL.setdefault(loop, Mail())
    came: asyncio.Queue[tuple[int, Progress | Future[Answered[Completion]]]] = asyncio.Queue()

    def tell(index: int, what: Progress | Future[Answered[Completion]]) -> None:
        mail.put(loop, came, (index, what))

    futures = []
    try:
        for index, request in enumerate(requests):
            future = version.held.sample(request, version.adapter, partial(tell, index))
            futures.append(future)
            future.add_done_callback(partial(tell, index))
        left = len(futures)
        while left:
            index, what = await came.get()
            if isinstance(what, Progress):
                yield index, what
                continue
            left -= 1
            yield index, what.result().what
    finally:
        for future in futures:
            future.cancel()


async def pieces(asked: Exchange, timed: Timed) -> AsyncGenerator[Piece]:
    """The choices of a request as they come."""
    speakers = [speaker_of(asked) for _ in range(asked.n)]
    async with aclosing(drawn(asked.version, asked.requests())) as stream:
        async for index, what in stream:
            timed.came(asked)
            if isinstance(what, Progress):
                deltas = speakers[index].feed(what.ids)
                yield Piece(index, tuple(deltas), what)
            else:
                yield last_piece(index, speakers[index], what)
    timed.ended(asked)


def last_piece(index: int, speaker: Speaker, made: Completion) -> Piece:
    rest = speaker.end()
    return Piece(index, tuple(rest), NOTHING, Ended(made, speaker.written))


def whole_piece(asked: Exchange, made: Completion) -> Iterator[Piece]:
    """A completion that is there already, as if it came in one piece."""
    speaker = speaker_of(asked)
    logprobs, likeliest = made.logprobs or (), made.likeliest or ()
    yield Piece(0, tuple(speaker.feed(made.ids)), Progress(made.ids, logprobs, likeliest))
    yield last_piece(0, speaker, made)


def speaker_of(asked: Exchange) -> Speaker:
    renderer = asked.version.renderer
    shown = {OPENS, CLOSES, *(MARKS if asked.tools else ())}
    hidden = frozenset(i for i, token in renderer.special.items() if token not in shown)
    detokenizer = Detokenizer(renderer.tokenizer, hidden, asked.version.ends)
    return Speaker(detokenizer, asked.sampling.stop, asked.tools, asked.prompted.opened)


@dataclass(slots=True)
class Collected:
    """All that came of one choice."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    likeliest: list[tuple[tuple[int, float], ...]] = field(default_factory=list)
    ended: Ended | None = None

    def add(self, piece: Piece) -> None:
        self.ids += piece.progress.ids
        self.logprobs += piece.progress.logprobs
        self.likeliest += piece.progress.likeliest
        self.ended = piece.ended or self.ended

    def done(self) -> Ended:
        assert self.ended is not None
        return self.ended


def usage(asked: Exchange, ended: Sequence[Ended], spent: int | None = None) -> dict[str, Any]:
    """Tokens that were read and written; `spent` are those of candidates that are not shown."""
    prompt = len(asked.prompted.prompt_ids)
    written = sum(len(one.completion.ids) for one in ended)
    used = {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}
    return used if spent is None else {**used, "strop": {"sampled_tokens": spent}}
