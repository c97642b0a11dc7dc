"""A webhook's server on this machine, which answers as it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Hook:
    """What a running server saw: bodies, paths and headers of the requests, in order."""

    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        return [body["text"] for body in self.bodies]

    @property
    def outcomes(self) -> list[tuple[str, str]]:
        """`[("alarm", "stop"), ("end", "stopped")]`."""
        return [(body["event"], body["outcome"]) for body in self.bodies]


@contextmanager
def hook_server(
    statuses: Sequence[int] = (), *, echo: bool = False, retry_after: str = ""
) -> Iterator[Hook]:
    """A server that gives these statuses in turn, then 200; with `echo` it repeats the request's
    path and headers in its answer, as some error pages do."""
    left = list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hook.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            hook.paths.append(self.path)
            hook.headers.append(dict(self.headers))
            status = left.pop(0) if left else 200
            said = f"no {self.path} {self.headers.get('Authorization')}" if echo else "ok"
            self.send_response(status)
            if retry_after:
                self.send_header("Retry-After", retry_after)
            self.end_headers()
            self.wfile.write(said.encode())

        def log_message(self, *_: Any) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hook = Hook(f"http://127.0.0.1:{running.server_port}/hook")
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    try:
        yield hook
    finally:
        running.shutdown()
        thread.join()
        running.server_close()
