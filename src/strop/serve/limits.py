"""How much one request may bring, and how many are answered at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import Counter
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from strop.recipe.serve import LOOPBACK, LimitsRecipe
from strop.serve.access import Doors
from strop.serve.errors import RefusedError

BODY_SECONDS = 30.0
"""In which a body has to come."""


OPEN = ("/health", "/metrics")
"""Answered to whoever asks, as those who watch over a server need it."""


class Counted:
    """Counts requests by route and status, also those that are refused before they have a route."""

    def __init__(self, app: ASGIApp, requests: Counter) -> None:
        self.app, self.requests = app, requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            self.requests.labels(path, str(status)).inc()


class OwnName:
    """Answers only requests that name this machine: a web page whose name was made to lead here has
    another."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            named = Headers(scope=scope).getlist("host")
            if len(named) != 1 or _without_port(named[0]).lower() not in (*LOOPBACK, "[::1]"):
                told = "this server answers requests to 127.0.0.1 and localhost alone"
                await RefusedError(400, told, code="unknown_host").response()(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _without_port(host: str) -> str:
    return host if host.endswith("]") else host.rpartition(":")[0] or host


class KnownCallers:
    """Turns away whoever sends no valid token, before a word of the request is read."""

    def __init__(self, app: ASGIApp, doors: Doors) -> None:
        self.app, self.doors = app, doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN:
            try:
                self.doors.known(Headers(scope=scope).get("authorization"))
            except RefusedError as error:
                await error.response()(scope, receive, send)
                return
        await self.app(scope, receive, send)


class BodyLimit:
    """Reads a body before anything else is done with the request. Refuses one that is too long with
    413, at its header or as soon as it has come too far, and one that does not come with 408."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            said = dict(scope["headers"]).get(b"content-length", b"0")
            if not said.isdigit() or int(said) > self.most:
                raise self._too_long()
            async with asyncio.timeout(BODY_SECONDS):
                messages = await self._read(receive)
        except TimeoutError:
            late = RefusedError(408, f"the body did not come within {BODY_SECONDS:g} s")
            await late.response()(scope, receive, send)
        except RefusedError as error:
            await error.response()(scope, receive, send)
        else:

            async def again() -> Message:
                return messages.popleft() if messages else await receive()

            await self.app(scope, again, send)

    async def _read(self, receive: Receive) -> deque[Message]:
        messages: deque[Message] = deque()
        read, more = 0, True
        while more:
            message = await receive()
            messages.append(message)
            read += len(message.get("body", b""))
            if read > self.most:
                raise self._too_long()
            more = message["type"] == "http.request" and message.get("more_body", False)
        return messages

    def _too_long(self) -> RefusedError:
        return RefusedError(413, f"the body is longer than {self.most} bytes", code="body_too_long")


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
