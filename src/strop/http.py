"""The one HTTP client: JSON posted, tried again where that may help, within limits, kept on disk;
answers whole, or as streams of events.

With a cache folder an interrupted run resumes: what was answered is read from the folder, costs no
request and counts on no budget.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx

from strop.errors import BudgetError, HttpError, UsageError
from strop.files import sha256_hex, write_whole
from strop.wire import CallOff, done, heard, named, sent

LAST_PORT = 65_535

BUSY = (408, 429)
"""Statuses that, like those from 500 on, say that another attempt may succeed."""

DOWN_AFTER = 8
"""So many requests that failed without an answer in between say that the server is down."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """`RequestLimits(seconds=30.0, retries=4, at_once=8, per_second=5.0, most_requests=1000)`.

    A request gets `seconds` an attempt, from connecting to the last byte of the answer, and
    `retries` further attempts, but none after an attempt that took too long where `slow_again` is
    off: the server may still be at work on that one. The first further attempt waits
    `first_wait` seconds and each next one twice as long, up to `longest_wait`, or as long as the
    server asks by `Retry-After`; one that asks for more than `patience` seconds is not waited for.
    `at_once` requests are on their way together, and `per_second` attempts are begun. Once
    `most_requests` were sent or `most_tokens` were used (the answers' `usage.total_tokens`), the
    next request raises `BudgetError`; those on their way may still use more tokens. A stream has
    `seconds` in all, and once it has begun its events come within `silence` seconds of each other.
    """

    seconds: float = 120.0
    silence: float = 60.0
    retries: int = 4
    slow_again: bool = True
    first_wait: float = 0.5
    longest_wait: float = 8.0
    patience: float = 120.0
    at_once: int = 8
    per_second: float | None = None
    most_requests: int | None = None
    most_tokens: int | None = None


class HttpClient:
    """Posts JSON and returns the JSON of the answers; `sent` and `tokens` count what it cost.

    `cache` is a folder in which every answer is kept, with its request, under the hash of the two
    that make one: address and body; those for which `keep` is false are asked for again.
    """

    def __init__(
        self,
        limits: RequestLimits = RequestLimits(),
        *,
        headers: Mapping[str, str] = MappingProxyType({}),
        cache: Path | None = None,
        keep: Callable[[Any], bool] = lambda answer: True,
    ) -> None:
        self.limits, self.headers, self.cache, self.keep = limits, dict(headers), cache, keep
        self.sent = self.tokens = 0
        self._lock = threading.Lock()
        self._next = 0.0

    def post(self, url: str, body: Any, *, waiting: Future[Any] | None = None) -> Any:
        """The answer to one request. Raises `HttpError` where the last attempt fails too, and
        `BudgetError` where the budget is used up.

        Whoever waits for it may give a future. When that is cancelled the connection is closed, so
        that the server can stop, and `CancelledError` is raised.
        """
        with self._connected(url) as connection:
            return self._asked(connection, url, body, CallOff(waiting)).said

    def events(self, url: str, body: Any, *, waiting: Future[Any] | None = None) -> Iterator[Any]:
        """The answer to one request as a stream: the JSON of its server-sent events, as they come,
        up to `[DONE]`. Nothing is asked for again once the stream has begun. To close the iterator,
        or to cancel `waiting`, closes the connection.

        Raises `HttpError` where no attempt opens a stream, where one ends before `[DONE]` or is
        too slow, and for an event that tells an `error`; `BudgetError` as `post` does.
        """
        call_off, until = CallOff(waiting), time.monotonic() + self.limits.seconds
        with self._connected(url) as connection:
            self._charge(url)
            request = connection.build_request("POST", url, json=body)
            response = self._tried(connection, request, call_off, read=_stream, whole=False)
            try:
                for data in heard(response, until, self.limits.silence, waiting):
                    if data == b"[DONE]":
                        return
                    event = _event(data, url)
                    self._count(event)
                    yield event
            except TimeoutError:
                raise HttpError(_too_slow(self.limits.seconds), where=url) from None
        raise HttpError("the stream ended before `[DONE]`", where=url)

    def tell(self, url: str, body: Any) -> int:
        """Post what has no answer but its status, which is returned. Raises `HttpError` where the
        last attempt fails too."""
        with self._connected(url) as connection:
            request = connection.build_request("POST", url, json=body)
            return int(self._tried(connection, request, CallOff(), read=_status))

    def get(self, url: str) -> Any:
        """What stands at an address, which is never taken from the cache. Raises `HttpError` where
        the last attempt fails too."""
        with self._connected(url) as connection:
            request = connection.build_request("GET", url)
            return self._tried(connection, request, CallOff())

    def post_all(
        self,
        url: str,
        bodies: Sequence[Any],
        *,
        refusals: Collection[int] = (),
        some_may_fail: bool = False,
    ) -> Iterator[tuple[int, Any]]:
        """(number of the body, its answer), as they come; the first failure calls off the rest:
        those that wait for another attempt give up, those on their way are let finish.

        A request that the server refuses with one of the statuses `refusals` has its `HttpError` in
        the answer's place, and the others go on. With `some_may_fail` so has one whose last attempt
        failed, too, as long as the server answers others: the failure of `DOWN_AFTER` in a row, or
        of all that were sent, is raised. Answers from the cache say nothing of the server.
        """
        call_off = CallOff()
        with (
            self._connected(url) as connection,
            ThreadPoolExecutor(self.limits.at_once) as threads,
        ):
            asked = {
                threads.submit(self._asked, connection, url, body, call_off): number
                for number, body in enumerate(bodies)
            }
            outcomes = (
                (asked[future], _outcome(future, refusals)) for future in as_completed(asked)
            )
            try:
                yield from _told_apart(outcomes, DOWN_AFTER if some_may_fail else 1)
            finally:
                call_off.set()
                threads.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def _connected(self, url: str) -> Iterator[httpx.AsyncClient]:
        """A connection for requests to `url`; raises `UsageError` for what is no address."""
        expect_address(url)
        encrypted = url.startswith("https:")  # reading certificates takes longer than an answer
        # httpx's own limits hold for every read by itself; `_whole` limits all of them together
        connection = httpx.AsyncClient(timeout=None, headers=self.headers, verify=encrypted)
        try:
            yield connection
        finally:
            done(connection.aclose())

    def _asked(
        self, connection: httpx.AsyncClient, url: str, body: Any, call_off: CallOff
    ) -> _Answered:
        kept = None if self.cache is None else self.cache / f"{request_hash(url, body)}.json"
        if kept is not None and (stored := _stored(kept)):
            return _Answered(stored["answer"], fresh=False)
        self._charge(url)
        request = connection.build_request("POST", url, json=body)
        answer = self._tried(connection, request, call_off)
        self._count(answer)
        if kept is not None and self.keep(answer):
            _store(kept, {"url": url, "body": body, "answer": answer})
        return _Answered(answer, fresh=True)

    def _tried(
        self,
        connection: httpx.AsyncClient,
        request: httpx.Request,
        call_off: CallOff,
        *,
        read: Callable[[httpx.Response, str], Any] | None = None,
        whole: bool = True,
    ) -> Any:
        """The answer after as many attempts as it takes, or as are left when it is called off. One
        that is not taken `whole` is read when its headers are there."""
        url = str(request.url)
        wait, problem = self.limits.first_wait, "called off"
        status: int | None = None
        for left in range(self.limits.retries, -1, -1):
            if call_off.wait(self._until_its_turn()):
                break
            try:
                sending = sent(connection, request, self.limits.seconds, whole=whole)
                response = done(sending, call_off.waiting)
            except TimeoutError:
                problem, asked_for, status = _too_slow(self.limits.seconds), 0.0, None
                if not self.limits.slow_again:
                    break
            except httpx.HTTPError as error:
                problem, asked_for, status = named(error), 0.0, None
            else:
                if response.is_success:
                    return (read or _parsed)(response, url)
                status = response.status_code
                problem = f"status {status}: {response.text[:200]}"
                asked_for = retry_after(response.headers.get("retry-after", ""))
                if _refuses(status):
                    break
            if asked_for > self.limits.patience:
                problem += (
                    f" (it asks to wait {asked_for:.0f} seconds, and "
                    f"{self.limits.patience:.0f} is the most that is waited)"
                )
                break
            if left:
                if call_off.wait(max(wait, asked_for)):
                    break
                wait = min(2 * wait, self.limits.longest_wait)
        raise HttpError(problem, where=url, status=status)

    def _until_its_turn(self) -> float:
        """Seconds until an attempt may begin."""
        if self.limits.per_second is None:
            return 0.0
        with self._lock:
            now = time.monotonic()
            begin = max(now, self._next)
            self._next = begin + 1 / self.limits.per_second
        return begin - now

    def _charge(self, url: str) -> None:
        """Count a request, or refuse it."""
        requests, tokens = self.limits.most_requests, self.limits.most_tokens
        with self._lock:
            if requests is not None and self.sent >= requests:
                raise BudgetError(f"the budget of {requests} requests is used up", where=url)
            if tokens is not None and self.tokens >= tokens:
                raise BudgetError(
                    f"the budget of {tokens} tokens is used up ({self.tokens} used)", where=url
                )
            self.sent += 1

    def _count(self, answer: Any) -> None:
        usage = answer.get("usage") if isinstance(answer, dict) else None
        used = usage.get("total_tokens") if isinstance(usage, dict) else None
        with self._lock:
            self.tokens += used if isinstance(used, int) else 0


def _event(data: bytes, url: str) -> Any:
    """What one event says; raises `HttpError` for an `error`."""
    try:
        said = json.loads(data)
    except ValueError:
        raise HttpError(f"an event is no JSON: {data[:200]!r}", where=url) from None
    if not isinstance(said, dict) or (error := said.get("error")) is None:
        return said
    told = error if isinstance(error, dict) else {"message": error}
    code = told.get("code")
    problem = f"it failed at the answer: {told.get('message')}"
    raise HttpError(problem, where=url, status=code if isinstance(code, int) else None)


def _too_slow(seconds: float) -> str:
    return f"no whole answer within {seconds:g} s"


def expect_address(url: str) -> None:
    """Raise `UsageError` for what no request can be sent to."""
    problem = ""
    try:
        address = httpx.URL(url)
        if address.scheme not in ("http", "https") or not address.host:
            problem = "it names no server"
        elif address.port is not None and address.port > LAST_PORT:
            problem = f"ports end at {LAST_PORT}"
    except httpx.InvalidURL as error:
        problem = str(error)
    if problem:
        raise UsageError(f"{url!r} is no HTTP address: {problem}",
                         fix="write one like http://127.0.0.1:8000")  # fmt: skip


def request_hash(url: str, body: Any) -> str:
    """Names a request by its content: the order of its keys does not count."""
    asked = json.dumps([url, body], sort_keys=True)
    return sha256_hex(asked)


def retry_after(header: str) -> float:
    """Seconds that a `Retry-After` header asks for (a number or a date, RFC 9110, section 10.2.3);
    0 where it is missing or cannot be read."""
    if header.strip().isascii() and header.strip().isdigit():
        return float(header)
    try:
        until = parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


@dataclass(frozen=True, slots=True)
class _Answered:
    """What was said, and whether the server said it now."""

    said: Any
    fresh: bool


@dataclass(frozen=True, slots=True)
class _Failed:
    """A request that got no answer, and whether another one may get one."""

    error: HttpError
    for_good: bool


def _outcome(future: Future[_Answered], refusals: Collection[int]) -> _Answered | _Failed:
    """What a request came to; the error of one that was refused by itself is an answer."""
    try:
        return future.result()
    except HttpError as error:
        if error.status in refusals:
            return _Answered(error, fresh=True)
        return _Failed(error, for_good=refused(error))


def refused(error: HttpError) -> bool:
    """Whether a server is there and says no, so that another attempt is of no use."""
    return error.status is not None and _refuses(error.status)


def _refuses(status: int) -> bool:
    return 400 <= status < 500 and status not in BUSY


def _told_apart(
    outcomes: Iterator[tuple[int, _Answered | _Failed]], down_after: int
) -> Iterator[tuple[int, Any]]:
    """Outcomes with the errors of single requests in the place of answers.

    Failures wait until an answer shows that the server is there. Raises the error of what no
    request can help (a wrong key), of `down_after` in a row, and of all where none was answered.
    """
    waiting: list[tuple[int, HttpError]] = []
    is_there = False
    for number, outcome in outcomes:
        if isinstance(outcome, _Failed):
            waiting.append((number, outcome.error))
            if outcome.for_good or len(waiting) >= down_after:
                raise outcome.error
            continue
        if outcome.fresh:
            is_there = True
            yield from waiting
            waiting.clear()
        yield number, outcome.said
    if waiting and not is_there:
        raise waiting[-1][1]
    yield from waiting


def _parsed(response: httpx.Response, url: str) -> Any:
    try:
        return response.json()
    except ValueError:
        problem = f"the answer is no JSON: {response.text[:200]!r}"
        raise HttpError(problem, where=url, status=response.status_code) from None


def _stream(response: httpx.Response, url: str) -> httpx.Response:
    """A stream that is to be read."""
    kind = response.headers.get("content-type", "")
    if not kind.startswith("text/event-stream"):
        problem = f"it does not stream: the answer is {kind or 'of no kind that it says'}"
        raise HttpError(problem, where=url, status=response.status_code)
    return response


def _status(response: httpx.Response, url: str) -> int:
    return response.status_code


def _stored(path: Path) -> dict[str, Any] | None:
    """What is kept of a request; `None` where nothing is, or a damaged file."""
    try:
        kept = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return kept if isinstance(kept, dict) and "answer" in kept else None


def _store(path: Path, kept: Mapping[str, Any]) -> None:
    """Whole or not at all: threads of this process and other processes may write the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(kept))
