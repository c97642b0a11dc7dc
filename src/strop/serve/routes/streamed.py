"""A stream that ends what belongs to it, however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing, suppress

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

GRACE = 5.0
"""Seconds beyond its limit in which a client may still read what a stream says at its end."""


class Streamed(StreamingResponse):
    """Server-sent events. `holds` (a turn, a version) is let go when the stream is over: read to
    the end, left by the client before or after its first word, or not read for `seconds`."""

    def __init__(
        self,
        stream: AsyncGenerator[str],
        holds: AsyncExitStack,
        seconds: float,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(stream, media_type="text/event-stream", headers=headers)
        self._stream, self._holds, self._seconds = stream, holds, seconds + GRACE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._holds, aclosing(self._stream):
            with suppress(TimeoutError):  # nobody reads it
                async with asyncio.timeout(self._seconds):
                    await super().__call__(scope, receive, send)
