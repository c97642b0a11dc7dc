"""The one HTTP client, against a server on this machine that answers as planned."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from strop.errors import BudgetError, HttpError, UsageError
from strop.http import HttpClient, RequestLimits, request_hash, retry_after
from tests.support.servers import stalling_server

QUICK = RequestLimits(first_wait=0.01, longest_wait=0.02)


class Plan:
    """What the server does: the statuses it begins with, how long it thinks, what it saw."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.refused: set[int] = set()
        self.broken: set[int] = set()
        self.retry_after = ""
        self.seconds = 0.0
        self.seen: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.together = self.most_together = 0
        self.lock = threading.Lock()
        self.url = ""

    def next_status(self, body: Any) -> int:
        if body["n"] in self.refused:
            return 404
        if body["n"] in self.broken:
            return 500
        return self.statuses.pop(0) if self.statuses else 200


@pytest.fixture
def server() -> Iterator[Plan]:
    plan = Plan()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with plan.lock:
                plan.times.append(time.monotonic())
                plan.seen.append(body)
                plan.headers.append(dict(self.headers))
                plan.together += 1
                plan.most_together = max(plan.most_together, plan.together)
                status = plan.next_status(body)
            time.sleep(plan.seconds)
            with plan.lock:
                plan.together -= 1
            self.send_response(status)
            if plan.retry_after:
                self.send_header("Retry-After", plan.retry_after)
            self.end_headers()
            answer = {"twice": 2 * body["n"], "usage": {"total_tokens": 10}}
            self.wfile.write(json.dumps(answer).encode() if status == 200 else b"not now")

        def log_message(self, *_: Any) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    plan.url = f"http://127.0.0.1:{running.server_port}"
    yield plan
    running.shutdown()
    thread.join()
    running.server_close()


def numbers(count: int) -> list[dict[str, int]]:
    return [{"n": n} for n in range(count)]


class TestAttempts:
    def test_a_busy_server_is_asked_again_after_growing_waits(self, server: Plan) -> None:
        server.statuses = [503, 429, 408]
        client = HttpClient(RequestLimits(first_wait=0.05, longest_wait=0.1))
        assert client.post(server.url, {"n": 4})["twice"] == 8
        gaps = [later - first for first, later in zip(server.times, server.times[1:], strict=False)]
        assert len(gaps) == 3
        assert all(gap >= wait for gap, wait in zip(gaps, (0.05, 0.1, 0.1), strict=True))
        assert client.sent == 1  # one request, whatever it took

    def test_the_last_failure_is_told(self, server: Plan) -> None:
        server.statuses = [500, 501, 502, 503]
        with pytest.raises(HttpError, match="status 502: not now") as told:
            HttpClient(RequestLimits(retries=2, first_wait=0.01)).post(server.url, {"n": 1})
        assert told.value.where == server.url
        assert len(server.seen) == 3

    def test_what_will_not_get_better_is_not_tried_again(self, server: Plan) -> None:
        server.refused = {1}
        with pytest.raises(HttpError, match="status 404"):
            HttpClient(QUICK).post(server.url, {"n": 1})
        assert len(server.seen) == 1

    def test_nobody_there(self) -> None:
        with socket.socket() as taken:  # bound, and not listening
            taken.bind(("127.0.0.1", 0))
            with pytest.raises(HttpError, match="ConnectError"):
                HttpClient(QUICK).post(f"http://127.0.0.1:{taken.getsockname()[1]}", {"n": 1})

    @pytest.mark.parametrize(
        ("url", "problem"),
        [
            ("127.0.0.1:8000/v1", "it names no server"),
            ("http://", "it names no server"),
            ("ftp://host/v1", "it names no server"),
            ("http://host:port/v1", "Invalid port"),
            ("http://host:70000/v1", "ports end at 65535"),
            ("http://ho\nst/v1", "Invalid non-printable"),
        ],
    )
    def test_no_address(self, url: str, problem: str) -> None:
        for ask in (HttpClient(QUICK).post, HttpClient(QUICK).post_all):
            with pytest.raises(UsageError, match=f"is no HTTP address: {problem}") as told:
                list(ask(url, [{"n": 1}]))
            assert "fix: write one like http://" in str(told.value)

    @pytest.mark.parametrize(
        ("begin", "trickle"),
        [(b"", b""), (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"), (b"HTTP/1.1 200 OK\r\n\r\n", b" ")],
        ids=["silent", "headers without end", "a body without end"],
    )
    def test_a_server_that_never_ends_an_answer(self, begin: bytes, trickle: bytes) -> None:
        """Every byte comes in time, the last one never."""
        client = HttpClient(RequestLimits(seconds=0.3, retries=0))
        with stalling_server(begin, trickle) as stalling:
            for ask in (client.post, client.tell):
                with pytest.raises(HttpError, match=r"no whole answer within 0\.3 s"):
                    ask(stalling.url, {"n": 1})

    @pytest.mark.parametrize("again", [True, False])
    def test_what_took_too_long_is_asked_again_unless_that_is_not_wanted(
        self, server: Plan, again: bool
    ) -> None:
        limits = RequestLimits(seconds=1.0, retries=1, slow_again=again, first_wait=0.01)
        with stalling_server() as stalling:
            with pytest.raises(HttpError, match="no whole answer"):
                HttpClient(limits).post(stalling.url, {"n": 1})
            assert stalling.asked == 1 + again
        server.statuses = [503]
        assert HttpClient(limits).post(server.url, {"n": 4})["twice"] == 8

    def test_headers_go_along(self, server: Plan) -> None:
        HttpClient(headers={"Authorization": "Bearer k"}).post(server.url, {"n": 1})
        assert server.headers[0]["Authorization"] == "Bearer k"


class TestRetryAfter:
    def test_is_waited_for(self, server: Plan) -> None:
        server.statuses, server.retry_after = [429], "1"
        HttpClient(QUICK).post(server.url, {"n": 1})
        assert server.times[1] - server.times[0] >= 1

    def test_not_for_longer_than_patience(self, server: Plan) -> None:
        server.statuses, server.retry_after = [429], "3600"
        with pytest.raises(HttpError, match=r"asks to wait 3600 seconds, and 120 is the most"):
            HttpClient(QUICK).post(server.url, {"n": 1})
        assert len(server.seen) == 1

    def test_forms(self) -> None:
        soon = datetime.now(UTC) + timedelta(seconds=100)
        assert retry_after("120") == 120
        assert 98 <= retry_after(format_datetime(soon, usegmt=True)) <= 100
        assert retry_after(format_datetime(soon - timedelta(days=1), usegmt=True)) == 0
        assert [retry_after(text) for text in ("", "soon", "-5", "\u00b2")] == [0] * 4


class TestMany:
    def test_answers_carry_their_numbers_and_come_as_they_are_ready(self, server: Plan) -> None:
        server.statuses = [503]  # the first to arrive is late
        client = HttpClient(RequestLimits(first_wait=0.3, at_once=4))
        found = list(client.post_all(server.url, numbers(4)))
        assert {n: answer["twice"] for n, answer in found} == {0: 0, 1: 2, 2: 4, 3: 6}
        assert found[-1][0] == server.seen[0]["n"]

    @pytest.mark.parametrize("at_once", [1, 3])
    def test_no_more_at_once_than_allowed(self, server: Plan, at_once: int) -> None:
        server.seconds = 0.05
        assert (
            len(list(HttpClient(RequestLimits(at_once=at_once)).post_all(server.url, numbers(9))))
            == 9
        )
        assert server.most_together == at_once

    def test_attempts_are_spaced(self, server: Plan) -> None:
        """Six attempts (one is a retry) at 20 a second: five gaps of 50 ms."""
        server.statuses = [503]
        client = HttpClient(RequestLimits(first_wait=0.01, per_second=20))
        started = time.monotonic()
        list(client.post_all(server.url, numbers(5)))
        assert len(server.times) == 6
        assert time.monotonic() - started >= 5 / 20

    def test_a_failure_does_not_wait_for_the_retries_of_others(self, server: Plan) -> None:
        """One request sleeps for a minute before its next attempt, another fails for good."""
        server.statuses, server.retry_after = [503, 404], "60"
        client = HttpClient(RequestLimits(at_once=2, per_second=10))
        started = time.monotonic()
        with pytest.raises(HttpError, match="404"):
            list(client.post_all(server.url, numbers(2)))
        assert time.monotonic() - started < 30
        assert len(server.seen) == 2

    def test_a_failure_calls_off_the_rest(self, server: Plan) -> None:
        server.refused = {1}
        answers = HttpClient(RequestLimits(at_once=1)).post_all(server.url, numbers(50))
        assert next(answers)[0] == 0
        with pytest.raises(HttpError, match="404"):
            list(answers)
        assert len(server.seen) < 10


class TestCache:
    def test_what_was_answered_is_not_asked_again(self, server: Plan, tmp_path: Path) -> None:
        first = HttpClient(cache=tmp_path / "kept")
        answer = first.post(server.url, {"n": 3, "a": 1})
        again = HttpClient(cache=tmp_path / "kept")
        assert again.post(server.url, {"a": 1, "n": 3}) == answer
        assert (first.sent, again.sent, again.tokens, len(server.seen)) == (1, 0, 0, 1)
        assert HttpClient(cache=tmp_path / "kept").post(server.url, {"n": 4})["twice"] == 8
        assert len(server.seen) == 2
        (kept,) = [p for p in (tmp_path / "kept").iterdir() if json.loads(p.read_text())["body"]
                   == {"n": 4}]  # fmt: skip
        assert kept.name == f"{request_hash(server.url, {'n': 4})}.json"

    def test_an_interrupted_run_resumes(self, server: Plan, tmp_path: Path) -> None:
        server.refused = {3}
        limits = RequestLimits(at_once=1)
        with pytest.raises(HttpError):
            list(HttpClient(limits, cache=tmp_path).post_all(server.url, numbers(6)))
        answered = {json.loads(path.read_text())["body"]["n"] for path in tmp_path.iterdir()}
        assert {0, 1, 2} <= answered < {0, 1, 2, 4, 5}
        server.refused.clear()
        server.seen.clear()
        found = dict(HttpClient(limits, cache=tmp_path).post_all(server.url, numbers(6)))
        assert [found[n]["twice"] for n in range(6)] == [0, 2, 4, 6, 8, 10]
        assert {body["n"] for body in server.seen} == set(range(6)) - answered

    def test_failures_are_not_kept_and_damage_is_mended(self, server: Plan, tmp_path: Path) -> None:
        server.refused = {1}
        with pytest.raises(HttpError):
            HttpClient(cache=tmp_path).post(server.url, {"n": 1})
        assert not list(tmp_path.iterdir())
        kept = tmp_path / f"{request_hash(server.url, {'n': 2})}.json"
        for damage in ("", '{"answer": {"twi', "[]", "{}"):
            kept.write_text(damage)
            assert HttpClient(cache=tmp_path).post(server.url, {"n": 2})["twice"] == 4
            assert json.loads(kept.read_text())["answer"]["twice"] == 4


class TestBudget:
    def test_requests(self, server: Plan, tmp_path: Path) -> None:
        client = HttpClient(RequestLimits(most_requests=2), cache=tmp_path)
        for n in (0, 1, 0, 1):
            client.post(server.url, {"n": n})  # the second time from disk
        with pytest.raises(BudgetError, match="budget of 2 requests is used up"):
            client.post(server.url, {"n": 2})
        assert len(server.seen) == client.sent == 2
        assert client.post(server.url, {"n": 1})["twice"] == 2

    def test_tokens(self, server: Plan) -> None:
        """Ten tokens an answer: 0 and 10 are below 15, 20 is not."""
        client = HttpClient(RequestLimits(most_tokens=15))
        for n in (0, 1):
            client.post(server.url, {"n": n})
        with pytest.raises(BudgetError, match=r"budget of 15 tokens is used up \(20 used\)"):
            client.post(server.url, {"n": 2})
        assert len(server.seen) == 2


class TestSomeMayFail:
    """One request that fails is one missing answer; a server that is down ends them all."""

    def asked(self, server: Plan, count: int, **limits: Any) -> dict[int, Any]:
        client = HttpClient(RequestLimits(first_wait=0.01, retries=1, **limits))
        return dict(client.post_all(server.url, numbers(count), some_may_fail=True))

    @pytest.mark.parametrize("at_once", [1, 4])
    def test_of_a_server_that_is_there(self, server: Plan, at_once: int) -> None:
        server.broken = {0, 3, 9}
        found = self.asked(server, 10, at_once=at_once)
        failed = {n for n, answer in found.items() if isinstance(answer, HttpError)}
        assert failed == {0, 3, 9}
        assert {n: found[n]["twice"] for n in found.keys() - failed} == {
            n: 2 * n for n in (1, 2, 4, 5, 6, 7, 8)
        }
        assert found[0].status == 500

    def test_of_one_that_went_down(self, server: Plan) -> None:
        server.broken = set(range(4, 100))
        with pytest.raises(HttpError, match="500"):
            self.asked(server, 100, at_once=2)
        assert len(server.seen) < 40

    def test_of_one_that_never_answered(self, server: Plan) -> None:
        server.broken = set(range(3))
        with pytest.raises(HttpError, match="500"):
            self.asked(server, 3, at_once=1)

    def test_what_was_kept_says_nothing_of_the_server(self, server: Plan, tmp_path: Path) -> None:
        """A server that is down now, and answers of another day."""
        limits = RequestLimits(first_wait=0.01, retries=0, at_once=1)
        list(HttpClient(limits, cache=tmp_path).post_all(server.url, numbers(4)))
        server.broken = set(range(4, 8))
        client = HttpClient(limits, cache=tmp_path)
        with pytest.raises(HttpError, match="500"):
            list(client.post_all(server.url, numbers(8), some_may_fail=True))

    def test_a_wrong_key_is_no_accident(self, server: Plan) -> None:
        server.refused = {1}
        with pytest.raises(HttpError, match="404"):
            self.asked(server, 5, at_once=1)

    def test_only_where_it_is_asked_for(self, server: Plan) -> None:
        server.broken = {1}
        with pytest.raises(HttpError, match="500"):
            list(HttpClient(RequestLimits(first_wait=0.01, retries=1)).post_all(
                server.url, numbers(5)))  # fmt: skip
