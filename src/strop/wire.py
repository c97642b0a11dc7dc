"""Requests on their way: one event loop for all of a process, answers whole or as streams of
events, each given up when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from functools import lru_cache
from queue import SimpleQueue
from typing import Any, TypeVar

import httpx

from strop.errors import HttpError

T = TypeVar("T")


def _loop() -> asyncio.AbstractEventLoop:
    """Where all requests of this process are on their way. Its thread holds up no exit."""
    with _BEGINS:
        return _begun()


_BEGINS = threading.Lock()


@lru_cache(maxsize=1)
def _begun() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="http", daemon=True).start()
    return loop


os.register_at_fork(after_in_child=_begun.cache_clear)  # a child has no thread but its own


class CallOff(threading.Event):
    """Once it is set no further attempt is made. It is set when `waiting` is cancelled, and what is
    on its way for that one is given up, too."""

    def __init__(self, waiting: Future[Any] | None = None) -> None:
        super().__init__()
        self.waiting = waiting
        if waiting is not None:
            waiting.add_done_callback(lambda _: self.set())


def _begun_for(waiting: Future[Any] | None, work: Coroutine[Any, Any, T]) -> Future[T]:
    """Work in the loop, which ends with the one who waits for it."""
    future = asyncio.run_coroutine_threadsafe(work, _loop())
    if waiting is not None:
        waiting.add_done_callback(lambda _: future.cancel())
    return future


def done(work: Coroutine[Any, Any, T], waiting: Future[Any] | None = None) -> T:
    """What work in the loop came to. Whoever stops waiting (by a signal, say) calls it off."""
    future = _begun_for(waiting, work)
    try:
        return future.result()
    finally:
        future.cancel()


async def sent(
    connection: httpx.AsyncClient, request: httpx.Request, seconds: float, *, whole: bool
) -> httpx.Response:
    """The answer: the whole of it, or its headers and, of a refusal, the text. Raises
    `TimeoutError` where the last byte is not there in time, however many came before."""
    async with asyncio.timeout(seconds):
        response = await connection.send(request, stream=not whole)
        if not response.is_success:
            await response.aread()
        return response


def heard(
    response: httpx.Response, until: float, silence: float, waiting: Future[Any] | None
) -> Iterator[bytes]:
    """What the events of a stream say, while the loop listens to it, until its end.

    Raises `TimeoutError` at the moment `until` (of `time.monotonic`), and `HttpError` where it
    breaks off or, once it has begun, says nothing for `silence` seconds.
    """
    came: SimpleQueue[bytes | Future[None]] = SimpleQueue()
    listening = _begun_for(waiting, _listen(response, until, silence, came.put))
    listening.add_done_callback(came.put)
    try:
        while not isinstance(what := came.get(), Future):
            yield what
        what.result()
    except httpx.HTTPError as error:
        problem = f"the stream broke off: {named(error)}"
        raise HttpError(problem, where=str(response.url)) from None
    finally:
        listening.cancel()


async def _listen(
    response: httpx.Response, until: float, silence: float, tell: Callable[[bytes], None]
) -> None:
    events, chunks = Events(), response.aiter_bytes()
    quiet_until = until
    try:
        while True:
            async with asyncio.timeout_at(min(until, quiet_until)):
                chunk = await anext(chunks, None)
            if chunk is None:
                return
            for data in events.feed(chunk):
                quiet_until = time.monotonic() + silence
                tell(data)
    except TimeoutError:
        if quiet_until >= until:
            raise
        problem = f"the stream said nothing for {silence:g} s"
        raise HttpError(problem, where=str(response.url)) from None
    finally:
        await response.aclose()


def named(error: httpx.HTTPError) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")


class Events:
    """Server-sent events out of bytes (WHATWG HTML, section 9.2.6). Lines are told apart as bytes:
    a text may hold what Python takes for ends of lines."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """What the events say that are complete now."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line.removeprefix(b"data:").removeprefix(b" "))
            elif not line and self._data:
                yield b"\n".join(self._data)
                self._data = []
