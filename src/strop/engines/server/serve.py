"""A model served over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from strop.engines.server.app import engine_app
from strop.engines.server.held import Held
from strop.engines.server.listen import answer_on, listening


def serve_engine(
    path: str, host: str, port: int, tell: Callable[[str], None], *, routes: bool = False
) -> None:
    """Serve a model folder until Ctrl-C or SIGTERM; `tell` is told the address once it answers.
    With `routes` answers say which experts their tokens went to.

    Raises `UsageError` where the port is taken, or the model has no experts to tell.
    """
    with listening(host, port) as listens, closing(Held(path, routes=routes)) as held:
        address = f"http://{host}:{listens.getsockname()[1]}"
        answer_on(listens, engine_app(held), lambda: tell(address))
