"""What a thread tells an event loop: all of it, in order, and the loop is woken once for much."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from strop.engines.server.lanes import Answered, Progress
from strop.engines.server.streams import Mail, Sample, drawn
from strop.types import Completion


def test_much_that_is_told_at_once_wakes_the_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[Any] = []

    async def run() -> list[list[int]]:
        loop, mail = asyncio.get_running_loop(), Mail()
        queues: list[asyncio.Queue[int]] = [asyncio.Queue(), asyncio.Queue()]
        wake = loop.call_soon_threadsafe
        monkeypatch.setattr(loop, "call_soon_threadsafe", lambda f: woken.append(f) or wake(f))
        found = []
        for turn in range(2):
            for number in range(20):
                mail.put(loop, queues[number % 2], 20 * turn + number)
            assert len(woken) == turn + 1
            found += [[await queue.get() for _ in range(10)] for queue in queues]
        return found

    found = asyncio.run(run())
    assert found == [list(range(n, n + 20, 2)) for n in (0, 1, 20, 21)]


def test_nothing_is_lost_whenever_threads_tell() -> None:
    """Three threads tell 2000 numbers each while the loop takes them."""

    async def run() -> list[int]:
        loop, mail = asyncio.get_running_loop(), Mail()
        queue: asyncio.Queue[int] = asyncio.Queue()

        def tell(first: int) -> None:
            for number in range(first, first + 2000):
                mail.put(loop, queue, number)

        threads = [threading.Thread(target=tell, args=(first,)) for first in (0, 2000, 4000)]
        for thread in threads:
            thread.start()
        async with asyncio.timeout(30):
            found = [await queue.get() for _ in range(6000)]
        for thread in threads:
            thread.join()
        return found

    found = asyncio.run(run())
    assert sorted(found) == list(range(6000))
    for first in (0, 2000, 4000):
        mine = [number for number in found if first <= number < first + 2000]
        assert mine == list(range(first, first + 2000))


def test_what_was_told_while_nobody_looked_comes_as_one() -> None:
    """A client that is slower than its answer is told fewer and longer parts."""

    def answer(first: int) -> Sample:
        def sample(tell: Callable[[Progress], None]) -> Future[Answered[Completion]]:
            for number in range(first, first + 1000):
                tell(Progress((number,), (-float(number),), (((number, 0.0),),)))
            future: Future[Answered[Completion]] = Future()
            future.set_result(Answered(Completion.one_turn((), "", (), "stop", 0), str(first)))
            return future

        return sample

    async def run() -> list[Any]:
        return [one async for one in drawn([answer(0), answer(5000)])]

    found = asyncio.run(run())
    for index, first in enumerate((0, 5000)):
        (told, ended) = [what for place, what in found if place == index]
        assert told.ids == tuple(range(first, first + 1000))
        assert told.logprobs == tuple(-float(n) for n in told.ids)
        assert told.likeliest == tuple(((n, 0.0),) for n in told.ids)
        assert ended.version == str(first)
