"""What a thread tells an event loop: all of it, in order, and the loop is woken once for much."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from strop.engines.server.streams import Mail


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
