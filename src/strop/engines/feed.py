"""Requests that come while others are answered."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from strop.engines.engine import Request


class Feed:
    """What is asked of an engine, from any thread, until it is closed.

    `Engine.answering(feed)` answers each request under its number and ends once the feed is closed
    and everything is answered.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Request]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._error: BaseException | None = None

    def put(self, requests: Sequence[tuple[int, Request]]) -> None:
        """Ask for these under numbers of their own; they are taken together."""
        with self._changed:
            self._waiting.extend(requests)
            self._changed.notify_all()

    def close(self, error: BaseException | None = None) -> None:
        """Nothing more is asked; an error is raised where the engine asks for more."""
        with self._changed:
            self._closed, self._error = True, error
            self._changed.notify_all()

    @property
    def stirred(self) -> bool:
        """Whether there is something to take."""
        return bool(self._waiting) or self._error is not None

    def take(self, *, wait: bool) -> list[tuple[int, Request]]:
        """All that was asked since; with `wait` there is something, unless nothing comes any
        more."""
        with self._changed:
            while wait and not (self._waiting or self._closed):
                self._changed.wait()
            if self._error is not None:
                raise self._error
            taken = list(self._waiting)
            self._waiting.clear()
            return taken

    def take_one(self) -> tuple[int, Request] | None:
        """The next request, which is waited for; `None` if nothing comes any more."""
        with self._changed:
            while not (self._waiting or self._closed):
                self._changed.wait()
            if self._error is not None:
                raise self._error
            return self._waiting.popleft() if self._waiting else None
