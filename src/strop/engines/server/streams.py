"""Answers to clients over HTTP, as they are drawn; what nobody reads any more is called off."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, aclosing, suppress
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from strop.engines.server.lanes import Answered, Progress, joined
from strop.types import Completion

T = TypeVar("T")

Sample = Callable[[Callable[[Progress], None]], Future[Answered[Completion]]]
"""Begins an answer, and tells its tokens from a thread of its own."""

Drawn = tuple[int, Progress | Answered[Completion]]
"""The place of a sample among those that are drawn together, and its new tokens or the whole."""

GRACE = 5.0
"""Seconds beyond its limit in which a client may still read what a stream says at its end."""

DONE = "data: [DONE]\n\n"


class GoneError(Exception):
    """The client went away: nobody reads what is answered."""


def event(value: Any) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


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


async def drawn(samples: Sequence[Sample]) -> AsyncGenerator[Drawn]:
    """What comes of samples, as it comes. Who stops reading calls the rest off.

    What was told while nobody looked comes as one. So there is no more to do than the reader can,
    and he waits between any two looks: a task that never waits keeps the loop from all others, and
    cannot be called off.
    """
    loop = asyncio.get_running_loop()
    mail = _MAIL.setdefault(loop, Mail())
    came: asyncio.Queue[tuple[int, Progress | Future[Answered[Completion]]]] = asyncio.Queue()

    def tell(index: int, what: Progress | Future[Answered[Completion]]) -> None:
        mail.put(loop, came, (index, what))

    futures = []
    try:
        for index, sample in enumerate(samples):
            future = sample(partial(tell, index))
            futures.append(future)
            future.add_done_callback(partial(tell, index))
        left = len(futures)
        while left:
            news = [await came.get()]
            while not came.empty():
                news.append(came.get_nowait())
            for index, progress in _joined(news).items():
                yield index, progress
            for index, what in news:
                if isinstance(what, Future):
                    left -= 1
                    yield index, what.result()
    finally:
        for future in futures:
            future.cancel()


def _joined(news: Sequence[tuple[int, Progress | Any]]) -> dict[int, Progress]:
    """All that was told of each sample, as one."""
    parts: dict[int, list[Progress]] = {}
    for index, what in news:
        if isinstance(what, Progress):
            parts.setdefault(index, []).append(what)
    return {index: told[0] if len(told) == 1 else joined(told) for index, told in parts.items()}


async def unless_gone(
    request: Request, work: Coroutine[Any, Any, T], seconds: float | None = None
) -> T:
    """The result of some work, which is called off when the client goes away (`GoneError`) or time
    is up (`TimeoutError`)."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise GoneError if gone.done() else TimeoutError
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Streamed(StreamingResponse):
    """Server-sent events. `holds` (a turn, a version) is let go when the stream is over: read to
    the end, left by the client before or after its first word, or not read for `seconds`."""

    def __init__(
        self,
        stream: AsyncGenerator[str],
        holds: AsyncExitStack,
        seconds: float | None,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(stream, media_type="text/event-stream", headers=headers)
        self._stream, self._holds = stream, holds
        self._seconds = None if seconds is None else seconds + GRACE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._holds, aclosing(self._stream):
            with suppress(TimeoutError):  # nobody reads it
                async with asyncio.timeout(self._seconds):
                    await super().__call__(scope, receive, send)
