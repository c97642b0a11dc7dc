"""An OpenAI-compatible server on this machine that says what it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[dict[str, Any]], Any]
"""A request's body -> what is said: a text, an answer's choice, or a status that refuses it."""


class ChatServer:
    """What a running server saw: `asked` are the bodies of the requests, in order of arrival."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[dict[str, Any]] = []

    @property
    def prompts(self) -> list[str]:
        """What was asked last in every request."""
        return [body["messages"][-1]["content"] for body in self.asked]


@contextmanager
def chat_server(reply: Reply) -> Iterator[ChatServer]:
    """A server that gives `reply` to each request, and counts 10 tokens of the prompt and 1 a word
    of the answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.asked.append(body)
            said = reply(body)
            status = said if isinstance(said, int) else 200
            choice = said if isinstance(said, dict) else {"message": {"content": str(said)}}
            self.send_response(status)
            self.end_headers()
            words = len(str(choice["message"].get("content") or "").split())
            usage = {"prompt_tokens": 10, "completion_tokens": words, "total_tokens": 10 + words}
            answer = {"choices": [{"finish_reason": "stop", **choice}], "usage": usage}
            self.wfile.write(json.dumps(answer).encode() if status == 200 else b"no")

        def log_message(self, *_: Any) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = ChatServer(f"http://127.0.0.1:{running.server_port}/v1")
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        running.shutdown()
        thread.join()
        running.server_close()
