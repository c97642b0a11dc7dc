"""Listens on a port, and says when an app answers there."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import uvicorn

from strop.errors import UsageError

SECONDS_TO_END = 2
"""So long an answer that is on its way may take once the server is told to end."""


class ToldServer(uvicorn.Server):
    """Says when it answers, and can be ended: a signal before that would be lost."""

    def __init__(
        self,
        config: uvicorn.Config,
        ready: Callable[[], None],
        ending: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config)
        self.ready, self.ending = ready, ending

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.ending()
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready()


def listening(host: str, port: int) -> socket.socket:
    """A socket on that port (0 is any free one). Raises `UsageError` where it is taken.

    What is said on its connections goes at once (TCP_NODELAY, which they inherit; asyncio sets it
    only on sockets that it makes itself). Else the first word of a stream waits until the client
    has confirmed the headers, on Linux up to 40 ms.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listens = socket.create_server((host, port), family=family)
    except OSError as error:
        raise UsageError(f"port {port} of {host} cannot be had: {error.strerror}",
                         fix="give another --port, or 0 for any free one") from None  # fmt: skip
    listens.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listens


def answer_on(
    listens: socket.socket,
    app: Any,
    ready: Callable[[], None],
    ending: Callable[[], None] = lambda: None,
) -> None:
    """Serve an app until Ctrl-C or SIGTERM; `ending` is called when one of them arrives."""
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=SECONDS_TO_END
    )
    with suppress(KeyboardInterrupt):  # it has ended in order, and says so once more
        ToldServer(config, ready, ending).run(sockets=[listens])
