"""How much one request may bring, and how many are answered at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from strop.recipe.serve import LimitsRecipe
from strop.serve.errors import RefusedError


class BodyLimit:
    """Refuses a body that is too long with 413, at its header or as soon as it has come too far."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        said = dict(scope["headers"]).get(b"content-length", b"0")
        too_long = RefusedError(413, f"the body is longer than {self.most} bytes",
                                code="body_too_long")  # fmt: skip
        if not said.isdigit() or int(said) > self.most:
            await too_long.response()(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.most:
                raise too_long
            return message

        await self.app(scope, counted, send)


class Turnstile:
    """Lets `concurrency` requests through at a time; `queue` more wait, others are told to come
    back later (429)."""

    def __init__(self, limits: LimitsRecipe) -> None:
        self._limits = limits
        self._free = asyncio.Semaphore(limits.concurrency)
        self.waiting = self.inside = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        if self._free.locked() and self.waiting >= self._limits.queue:
            raise RefusedError(
                429, f"{self.inside} requests are being answered and {self.waiting} wait",
                code="queue_full", headers={"Retry-After": "1"},
            )  # fmt: skip
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1
            self._free.release()
