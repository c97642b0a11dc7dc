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
    app = label_app(ledger, token)
    with listening:
        tell(f"http://127.0.0.1:{listening.getsockname()[1]}/#token={token}")
        config = uvicorn.Config(app, log_level="warning", access_log=False)
        with suppress(KeyboardInterrupt):  # it has ended in order, and says so once more
            uvicorn.Server(config).run(sockets=[listening])
