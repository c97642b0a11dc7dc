"""Streams of events, and requests that nobody waits for any more, against servers on this machine
that say what a test decides."""

from __future__ import annotations

import json
import socket
import threading
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any

import pytest

from strop.errors import BudgetError, HttpError
from strop.http import HttpClient, RequestLimits
from strop.wire import Events
from tests.support.servers import HEADERS, Talk, saying, talking_server

LIMITS = RequestLimits(seconds=20.0, retries=1, first_wait=0.01)


def heard(*talks: Talk, limits: RequestLimits = LIMITS) -> list[Any]:
    with talking_server(*talks) as url:
        return list(HttpClient(limits).events(url, {"n": 1}))


class TestEvents:
    TEXT = (
        b": a comment\r\n\r\ndata: one\n\nevent: x\ndata:two\ndata:  lines\nid: 3\n\n"
        + "data: a\u2028b\x0bc\u0085d\n\n".encode()
        + b"\n\ndata:\n\ndata: unfinished\n"
    )
    SAID = (b"one", b"two\n lines", "a\u2028b\x0bc\u0085d".encode(), b"")

    @pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
    def test_are_the_same_however_their_bytes_come(self, size: int) -> None:
        events = Events()
        pieces = [self.TEXT[n : n + size] for n in range(0, len(self.TEXT), size)]
        assert tuple(said for piece in pieces for said in events.feed(piece)) == self.SAID


class TestStreams:
    def test_an_event_is_told_before_the_next_is_said(self) -> None:
        """The server says the next one only when the one before was heard."""
        told = threading.Semaphore(0)

        def talk(connection: socket.socket) -> None:
            connection.sendall(HEADERS)
            for number in range(5):
                connection.sendall(b'data: {"n": %d}\n\n' % number)
                assert told.acquire(timeout=10)
            connection.sendall(b"data: [DONE]\n\n")

        found = []
        with talking_server(talk) as url:
            for event in HttpClient(LIMITS).events(url, {}):
                found.append(event["n"])
                told.release()
        assert found == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize(
        ("talk", "problem"),
        [
            (saying({"n": 1}), r"ended before `\[DONE\]`"),
            (saying(), r"ended before `\[DONE\]`"),
            (saying(b"{oops", b"[DONE]"), "an event is no JSON: b'{oops'"),
            (saying(b"\xff", b"[DONE]"), "an event is no JSON"),
            (saying({"error": {"message": "out of memory", "code": 500}}), "out of memory"),
            (saying({"error": "it died"}, b"[DONE]"), "it died"),
            (saying(begin=HEADERS.replace(b"text/event-stream", b"application/json")),
             "it does not stream: the answer is application/json"),
            (saying({"n": 1}, begin=HEADERS.replace(b"Connection: close", b"Content-Length: 900")),
             "the stream broke off: RemoteProtocolError"),
        ],
    )  # fmt: skip
    def test_that_go_wrong(self, talk: Talk, problem: str) -> None:
        with pytest.raises(HttpError, match=problem) as told:
            heard(talk)
        assert str(told.value.where).startswith("http://127.0.0.1:")

    def test_an_error_has_its_status(self) -> None:
        with pytest.raises(HttpError) as told:
            heard(saying({"n": 1}, {"error": {"message": "m", "code": 400}}))
        assert told.value.status == 400

    def test_nothing_is_heard_after_the_end(self) -> None:
        assert heard(saying({"n": 1}, {"error": None}, b"[DONE]", {"n": 2})) == [
            {"n": 1}, {"error": None}]  # fmt: skip

    def test_one_that_was_not_begun_is_asked_for_again(self) -> None:
        busy = saying(begin=b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
        assert heard(busy, saying({"n": 2}, b"[DONE]")) == [{"n": 2}]
        with pytest.raises(HttpError, match="status 503: not now"):
            heard(busy, saying(begin=b"HTTP/1.1 503 Busy\r\nContent-Length: 7\r\n\r\nnot now"))

    def test_one_that_was_begun_is_not(self) -> None:
        with pytest.raises(HttpError, match="ended before"):
            heard(saying({"n": 1}), saying({"n": 2}, b"[DONE]"))

    @pytest.mark.parametrize(
        ("limits", "between", "problem"),
        [
            (RequestLimits(seconds=30, silence=0.2), b": still here\n\n",
             r"the stream said nothing for 0\.2 s"),
            (RequestLimits(seconds=0.5, silence=0.4), b"data: 2\n\n",
             r"no whole answer within 0\.5 s"),
        ],
        ids=["silent", "without end"],
    )  # fmt: skip
    def test_that_are_too_slow(self, limits: RequestLimits, between: bytes, problem: str) -> None:
        over = threading.Event()

        def talk(connection: socket.socket) -> None:
            connection.sendall(HEADERS + b"data: 1\n\n")
            while not over.wait(0.02):
                connection.sendall(between)

        try:
            with talking_server(talk) as url, pytest.raises(HttpError, match=problem):
                list(HttpClient(limits).events(url, {}))
        finally:
            over.set()

    def test_the_first_event_may_take_longer_than_one_between_others(self) -> None:
        def talk(connection: socket.socket) -> None:
            connection.sendall(HEADERS)
            threading.Event().wait(0.5)
            connection.sendall(b"data: 1\n\ndata: [DONE]\n\n")

        assert heard(talk, limits=RequestLimits(seconds=20, silence=0.1)) == [1]

    def test_cost_what_they_say(self) -> None:
        client = HttpClient(RequestLimits(most_tokens=8))
        talk = saying({"n": 1}, {"usage": {"total_tokens": 9}}, b"[DONE]")
        with talking_server(talk) as url:
            list(client.events(url, {}))
            with pytest.raises(BudgetError, match="9 used"):
                list(client.events(url, {}))
        assert (client.sent, client.tokens) == (1, 9)


class TestCalledOff:
    """A server sees that its client is gone when its connection has an end."""

    @pytest.mark.parametrize("how", ["stream", "whole", "iterator"])
    def test_the_connection_is_closed(self, how: str) -> None:
        asked, gone = threading.Event(), threading.Event()

        def talk(connection: socket.socket) -> None:
            connection.sendall(HEADERS + b"data: 1\n\n")
            asked.set()
            connection.settimeout(20)
            with suppress(ConnectionResetError):  # it left something unread
                assert connection.recv(1) == b""
            gone.set()

        waiting: Future[Any] = Future()
        client = HttpClient(LIMITS)
        with talking_server(talk) as url:
            if how == "iterator":
                events = client.events(url, {})
                assert next(events) == 1
                events.close()
            else:
                leaver = threading.Thread(target=lambda: asked.wait(20) and waiting.cancel())
                leaver.start()
                ask = client.post if how == "whole" else client.events
                with pytest.raises(CancelledError):
                    list(ask(url, {}, waiting=waiting))
                leaver.join()
            assert gone.wait(20)

    def test_nobody_is_asked_for_one_who_left_before(self) -> None:
        waiting: Future[Any] = Future()
        waiting.cancel()
        asked: list[int] = []
        with talking_server(lambda connection: asked.append(1)) as url:
            with pytest.raises(HttpError, match="called off"):
                HttpClient(LIMITS).post(url, {}, waiting=waiting)
            with pytest.raises(HttpError, match="called off"):
                list(HttpClient(LIMITS).events(url, {}, waiting=waiting))
            assert not asked
            with pytest.raises(HttpError):  # so that it does not wait for somebody
                HttpClient(RequestLimits(retries=0)).post(url, {})

    def test_an_answer_that_is_waited_for_comes(self) -> None:
        body = json.dumps({"a": 1}).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
        with talking_server(lambda connection: connection.sendall(head + body)) as url:
            assert HttpClient(LIMITS).post(url, {}, waiting=Future()) == {"a": 1}
