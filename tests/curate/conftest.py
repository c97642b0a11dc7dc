"""A chat server on this machine that answers as a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


class ChatServer:
    """`reply` makes an answer of the last message; `seen` are the bodies of all requests."""

    def __init__(self) -> None:
        self.reply: Callable[[str], str] = lambda text: f"re: {text}"
        self.seen: list[Any] = []
        self.url = ""


@pytest.fixture
def chat_server() -> Iterator[ChatServer]:
    server = ChatServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.seen.append(body)
            message = {"content": server.reply(body["messages"][-1]["content"])}
            said = {"choices": [{"message": message, "finish_reason": "stop"}],
                    "usage": {"total_tokens": 7}}  # fmt: skip
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(said).encode())

        def log_message(self, *_: Any) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    server.url = f"http://127.0.0.1:{running.server_port}/v1"
    yield server
    running.shutdown()
    thread.join()
    running.server_close()
