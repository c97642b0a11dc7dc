"""The embedded engine as a server in a thread of the test, which can be killed and made to lie."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from strop.engines.server.app import engine_app
from strop.engines.server.held import Held

Alter = Callable[[Held], None]
App = Callable[[Held], FastAPI]


@dataclass(slots=True)
class Running:
    """A server, its model, and how to end it as a crash would."""

    url: str
    held: Held
    server: uvicorn.Server
    thread: threading.Thread

    def kill(self) -> None:
        """No answer that is on its way is given."""
        self.server.should_exit = self.server.force_exit = True
        self.thread.join()


def start(
    folder: Path, port: int = 0, alter: Alter = lambda held: None, app: App = engine_app
) -> Running:
    held = Held(str(folder))
    alter(held)
    listens = socket.socket()
    listens.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listens.bind(("127.0.0.1", port))
    listens.listen()
    config = uvicorn.Config(app(held), log_level="critical", timeout_graceful_shutdown=0,
                            lifespan="off")  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listens]}, daemon=True)
    thread.start()
    while not server.started:
        threading.Event().wait(0.01)
    return Running(f"http://127.0.0.1:{listens.getsockname()[1]}", held, server, thread)


@contextmanager
def engine_server(
    folder: Path, alter: Alter = lambda held: None, app: App = engine_app
) -> Iterator[Running]:
    running = start(folder, alter=alter, app=app)
    try:
        yield running
    finally:
        running.kill()
        running.held.close()
