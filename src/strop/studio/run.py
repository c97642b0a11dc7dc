"""Serves the studio on this machine."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

from strop.engines.server.listen import answer_on, listening
from strop.errors import UsageError
from strop.studio.app import studio_app
from strop.studio.root import Root
from strop.studio.site import Site

HERE = "127.0.0.1"


def serve(root: Path, port: int, tell: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or SIGTERM; `tell` is told the address, which holds a new token.

    Raises `UsageError` where there is no such folder or the port is taken.
    """
    if not root.is_dir():
        raise UsageError("no such folder", where=str(root),
                         fix="give a folder that holds runs, or one above it")  # fmt: skip
    with listening(HERE, port) as listens:
        token = secrets.token_urlsafe(16)
        address = f"http://{HERE}:{listens.getsockname()[1]}/#token={token}"
        site = Site(Root(root), token)
        answer_on(listens, studio_app(site), lambda: tell(address), site.ending.set)
