"""The labelling page served to this machine."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from strop.engines.server.listen import answer_on, listening
from strop.judge.label.app import label_app
from strop.judge.label.ledger import Ledger

HERE = "127.0.0.1"


def serve(ledger: Ledger, port: int, tell: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or SIGTERM; `tell` is told the address to open, which holds a new token.

    Raises `UsageError` where the port is taken.
    """
    with listening(HERE, port) as listens:
        token = secrets.token_urlsafe(16)
        address = f"http://{HERE}:{listens.getsockname()[1]}/#token={token}"
        answer_on(listens, label_app(ledger, token), lambda: tell(address))
