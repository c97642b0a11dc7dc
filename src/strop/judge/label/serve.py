"""The labelling page served to this machine."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn

from strop.errors import UsageError
from strop.judge.label.app import label_app
from strop.judge.label.ledger import Ledger

SECONDS_TO_END = 2
"""So long an answer that is on its way may take once the server is told to end."""


class ToldServer(uvicorn.Server):
    """Says when it answers, and can be ended: a signal before that would be lost."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self.ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready()


def serve(ledger: Ledger, port: int, tell: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or SIGTERM; `tell` is told the address to open, which holds a new token.

    Raises `UsageError` where the port is taken.
    """
    try:
        listening = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise UsageError(f"port {port} cannot be had: {error.strerror}",
                         fix="give another --port, or 0 for any free one") from None  # fmt: skip
    token = secrets.token_urlsafe(16)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}/#token={token}"
    config = uvicorn.Config(
        label_app(ledger, token), log_level="warning", access_log=False,
        timeout_graceful_shutdown=SECONDS_TO_END,
    )  # fmt: skip
    with listening, suppress(KeyboardInterrupt):  # it has ended in order, and says so once more
        ToldServer(config, lambda: tell(address)).run(sockets=[listening])
