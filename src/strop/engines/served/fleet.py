"""Several servers of one model: requests are spread, and dead ones left out until they are
back."""

from __future__ import annotations

import queue
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from strop.engines.served.server import OtherWeightsError, Server
from strop.errors import HttpError, TrainingError
from strop.http import refused

T = TypeVar("T")

GIVEN_BACK = 3
"""So many times a server that lost its weights gets the same ones again before it is left out."""

SPENT_ON_LOOKING = 0.05
"""The share of the time that may be spent with looking for a server that is away."""


@dataclass(slots=True)
class Member:
    """A server, whether it answers, and the tokens that it still owes.

    `prepared` counts how often it got weights, `lost` how often it lost the newest; `returning` is
    one that gets them again just now. One that is away is not looked for before `look_at`, seconds
    on the fleet's clock.
    """

    server: Server
    alive: bool = True
    returning: bool = False
    outstanding: int = 0
    prepared: int = 0
    lost: int = 0
    look_at: float = 0.0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Asked(Generic[T]):
    """One piece of work for any server, and how many tokens it takes."""

    work: Callable[[Server], T]
    tokens: int


@dataclass(slots=True)
class Fleet:
    """Asks the server that owes the fewest tokens, several callers at a time.

    `prepare` gives a server the newest weights and proves it; one that was away gets them before
    its first request. It is called from threads, for one server at a time: whoever changes what
    the newest weights are holds `preparing` meanwhile.
    """

    members: Sequence[Member]
    at_once: int
    prepare: Callable[[Server], None]
    preparing: threading.RLock = field(default_factory=threading.RLock)
    clock: Callable[[], float] = time.monotonic
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _closed: threading.Event = field(default_factory=threading.Event)
    _stop: TrainingError | None = None
    _places: threading.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._places = threading.Semaphore(self.at_once)

    def everywhere(self) -> None:
        """Prepare every server that answers, those that are back among them."""
        with self.preparing:
            self._stop = None
            for member in self.members:
                member.lost = 0
                self._prepared(member)
        if not any(member.alive for member in self.members):
            raise self._nobody()

    def close(self) -> None:
        """Nobody gets weights any more; who still asks is told what the servers say."""
        self._closed.set()

    def ask(self, asked: Sequence[Asked[T]]) -> Iterator[tuple[int, T]]:
        """(number, result), as they come. What a server owed when it fell silent is asked of
        another; one that lost its weights gets them again and is asked again: the same request has
        the same draw.

        Raises `TrainingError` where no server is left, and `HttpError` for a request that a server
        refuses. Neither that nor a signal waits for a server: the threads are daemons, and what
        they wait for has an end.
        """
        waiting = deque(enumerate(asked))

        def take() -> tuple[int, Asked[T]] | None:
            try:
                return waiting.popleft()
            except IndexError:
                return None

        yield from self.answered(take, min(self.at_once, len(asked)))

    def answered(
        self, take: Callable[[], tuple[int, Asked[T]] | None], askers: int
    ) -> Iterator[tuple[int, T]]:
        """As `ask`, of work that `take` gives by numbers until there is no more (`None`). It is
        called from `askers` threads, and may wait; what it raises is raised here."""
        self._look_for_those_away()
        ready: queue.SimpleQueue[tuple[int, Future[T]] | BaseException | None] = queue.SimpleQueue()
        over = threading.Event()

        def work() -> None:
            try:
                while not over.is_set() and (taken := take()) is not None:
                    number, asked = taken
                    ready.put((number, self._settled(asked, over)))
            except BaseException as error:  # noqa: BLE001 - whatever it is, the one who waits has to be told
                ready.put(error)
            ready.put(None)

        try:
            for _ in range(askers):
                threading.Thread(target=work, daemon=True).start()
            left = askers
            while left:
                said = ready.get()
                if said is None:
                    left -= 1
                elif isinstance(said, BaseException):
                    raise said
                else:
                    yield said[0], said[1].result()
        finally:
            over.set()

    def _settled(self, asked: Asked[T], over: threading.Event) -> Future[T]:
        """What a piece of work came to, an error as well."""
        future: Future[T] = Future()
        try:
            with self._places:
                future.set_result(self._one(asked, over))
        except Exception as error:  # noqa: BLE001 - whatever it is, the one who waits has to be told
            future.set_exception(error)
        return future

    def _one(self, asked: Asked[T], over: threading.Event) -> T:
        while True:
            member, prepared = self._take(asked.tokens)
            try:
                return asked.work(member.server)
            except HttpError as error:
                if over.is_set() or self._closed.is_set() or refused(error):
                    raise
                self._failed(member, prepared, error)
            finally:
                with self._changed:
                    member.outstanding -= asked.tokens

    def _take(self, tokens: int) -> tuple[Member, int]:
        """The server to ask, and how often it was prepared. Waits for one that is returning where
        there is no other."""
        with self._changed:
            while True:
                alive = [member for member in self.members if member.alive]
                if alive:
                    member = min(alive, key=lambda one: one.outstanding)
                    member.outstanding += tokens
                    return member, member.prepared
                if not any(member.returning for member in self.members):
                    raise self._stop or self._nobody()
                self._changed.wait()

    def _failed(self, member: Member, prepared: int, error: HttpError) -> None:
        """Leave a server out; one that only lost its weights gets them again at once. An error of
        a request that began before the server was last prepared says nothing any more."""
        with self._changed:
            if not member.alive or member.prepared != prepared:
                return
            self._left_out(member, error)
            lost = isinstance(error, OtherWeightsError)
            member.lost += lost
            member.returning = lost and member.lost <= GIVEN_BACK
            if not member.returning:
                return
        try:
            with self.preparing:
                self._prepared(member)
        except TrainingError as stop:
            self._stop = stop
            raise
        finally:
            with self._changed:
                member.returning = False
                self._changed.notify_all()

    def _look_for_those_away(self) -> None:
        """A look at one that says nothing takes seconds, so that it is looked for again only after
        a multiple of them; where nobody is left, at once."""
        if all(member.alive for member in self.members) or self._closed.is_set():
            return
        with self.preparing:
            nobody = not any(member.alive for member in self.members)
            for member in self.members:
                due = nobody or self.clock() >= member.look_at
                if due and not member.alive and not member.returning:
                    before = self.clock()
                    self._prepared(member)
                    now = self.clock()
                    member.look_at = now + (now - before) / SPENT_ON_LOOKING

    def _left_out(self, member: Member, error: HttpError) -> None:
        with self._changed:
            told, member.alive, member.problem = not member.alive, False, error.problem
        if not told:
            warnings.warn(
                f"{member.server.url} is left out until it answers again: {error.problem}",
                stacklevel=2,
            )

    def _prepared(self, member: Member) -> None:
        """Give a server the newest weights; one that does not answer is left out."""
        try:
            member.server.about()
            self.prepare(member.server)
        except HttpError as error:
            if refused(error):
                raise
            self._left_out(member, error)
        else:
            with self._changed:
                member.alive, member.prepared = True, member.prepared + 1

    def _nobody(self) -> TrainingError:
        tried = "; ".join(f"{one.server.url} ({one.problem})" for one in self.members)
        return TrainingError(
            f"no server answers: {tried}",
            fix="start one (docs/engines.md has the command) and resume the run: strop train "
            "--resume",
        )
