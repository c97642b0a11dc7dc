"""Servers on this machine: an OpenAI-compatible one that says what it is told to, and one that
never ends an answer."""

from __future__ import annotations

import itertools
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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


Talk = Callable[[socket.socket], None]
"""What a server does with a connection on which it was asked something."""

HEADERS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
"""What a stream of events begins with; it ends with its connection."""


@contextmanager
def talking_server(*talks: Talk) -> Iterator[str]:
    """A server that does `talks` with one connection after the other, and closes each; its
    address."""
    listens = socket.create_server(("127.0.0.1", 0))

    def work() -> None:
        with suppress(OSError):  # closed
            for talk in talks:
                connection, _ = listens.accept()
                with connection, suppress(OSError):
                    _read_request(connection)
                    talk(connection)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listens.getsockname()[1]}"
    finally:
        listens.shutdown(socket.SHUT_RDWR)  # wakes the thread where it waits for somebody
        listens.close()
        thread.join(10)


def _read_request(connection: socket.socket) -> None:
    """All of it: a connection that is closed with something unread is reset."""
    read = b""
    while b"\r\n\r\n" not in read:
        read += connection.recv(2**16)
    head, _, body = read.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    left = int(fields.get(b"content-length", b"0")) - len(body)
    while left > 0:
        left -= len(connection.recv(left))


def saying(*events: Any, begin: bytes = HEADERS) -> Talk:
    """Says these events at once: what is no bytes as JSON."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(begin)
        for event in events:
            said = event if isinstance(event, bytes) else json.dumps(event).encode()
            connection.sendall(b"data: " + said + b"\n\n")

    return talk


class StallingServer:
    """What a running server saw: `asked` counts requests."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked = 0


@contextmanager
def stalling_server(begin: bytes = b"", trickle: bytes = b"") -> Iterator[StallingServer]:
    """A server that takes requests and never ends an answer: it says `begin`, then the bytes of
    `trickle` one by one, over and over, or nothing more."""
    over = threading.Event()
    listens = socket.create_server(("127.0.0.1", 0))
    server = StallingServer(f"http://127.0.0.1:{listens.getsockname()[1]}")

    def stall(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(2**16)
            server.asked += 1
            connection.sendall(begin)
            for byte in itertools.cycle(trickle):
                connection.sendall(bytes([byte]))
                if over.wait(0.01):
                    return
            over.wait()

    def accept() -> None:
        with suppress(OSError):  # closed
            while True:
                threading.Thread(target=stall, args=(listens.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server
    finally:
        over.set()
        listens.close()
