"""One session with an OpenEnv server, over its WebSocket.

The protocol (openenv-core 0.3, openenv/core/env_server/types.py): JSON messages `{"type": "reset"
or "step", "data": {...}}` are answered with `{"type": "observation", "data": {"observation": {...},
"reward": ..., "done": ...}}`, or with `{"type": "error", "data": {"code": ..., "message": ...}}`. A
connection is a session with an environment of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any
from urllib.parse import urlsplit

from strop.errors import WorldError
from strop.rollout.environment import FaultError

CAPACITY = "CAPACITY_REACHED"
"""The server has as many sessions as it allows."""

LARGEST = 100 * 2**20
"""Bytes of an answer: observations may hold whole pages."""


class RefusedError(Exception):
    """The server answered with an error."""

    def __init__(self, code: str, said: str) -> None:
        self.code, self.said = code, said
        super().__init__(f"{code}: {said}")


class Session:
    """`Session("http://127.0.0.1:8000", seconds=60)`; every answer has so many seconds."""

    def __init__(self, url: str, seconds: float) -> None:
        self._url, self._seconds = url, seconds
        self._connection: Any = None

    async def open(self) -> None:
        """Connect. Raises `FaultError`."""
        local = urlsplit(self._url).hostname in ("localhost", "127.0.0.1", "::1")
        address = "ws" + self._url.removeprefix("http").rstrip("/") + "/ws"
        connect, failures = _library()
        try:
            self._connection = await connect(
                address, open_timeout=self._seconds, max_size=LARGEST, proxy=None if local else True
            )
        except (OSError, failures) as error:
            raise FaultError(f"{self._url} cannot be reached: {error}") from None

    async def ask(self, kind: str, data: dict[str, Any]) -> dict[str, Any]:
        """The answer to a `reset` or a `step`. Raises `RefusedError` where the server answers with
        an error, and `FaultError` where it does not answer."""
        _, failures = _library()
        message = json.dumps({"type": kind, "data": data}, default=str)
        # a server that is full says so and hangs up: what it said is still there to read
        with contextlib.suppress(failures):
            await self._connection.send(message)
        try:
            async with asyncio.timeout(self._seconds):
                answer = json.loads(await self._connection.recv())
            said = answer["data"]
            if answer["type"] == "error":
                more = f" {said['errors']}" if said.get("errors") else ""
                raise RefusedError(str(said.get("code")), f"{said.get('message')}{more}")
            done, reward = bool(said["done"]), said["reward"]
            return {"observation": said["observation"], "done": done,
                    "reward": None if reward is None else float(reward)}  # fmt: skip
        except TimeoutError:
            raise FaultError(f"{self._url} did not answer within {self._seconds:g} s") from None
        except (OSError, failures) as error:
            raise FaultError(f"{self._url} hung up: {error}") from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise FaultError(f"{self._url} answered what is no observation: {error!r}") from None

    async def close(self) -> None:
        """Hang up: the server ends the session."""
        if self._connection is not None:
            self._connection.transport.abort()


def _library() -> tuple[Any, type[Exception]]:
    """`connect` of websockets, and what it raises. Raises `WorldError` where it is missing."""
    try:
        from websockets.asyncio.client import connect
        from websockets.exceptions import WebSocketException
    except ImportError:
        raise WorldError(
            "an OpenEnv server is spoken to by websockets, which is not installed",
            fix="pip install 'strop[openenv]'",
        ) from None
    return connect, WebSocketException
