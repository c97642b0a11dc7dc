"""Several servers of one model: requests are spread, and dead ones left out until they are
back."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from strop.engines.served.server import Server
from strop.errors import HttpError, TrainingError

T = TypeVar("T")

BUSY = (408, 429)


@dataclass(slots=True)
class Member:
    """A server, whether it answers, and the tokens that it still owes."""

    server: Server
    alive: bool = True
    outstanding: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Asked(Generic[T]):
    """One piece of work for any server, and how many tokens it takes."""

    work: Callable[[Server], T]
    tokens: int


@dataclass(slots=True)
class Fleet:
    """Asks the server that owes the fewest tokens.

    `prepare` gives a server the newest weights and proves it; one that was away gets them before
    its first request.
    """

    members: Sequence[Member]
    at_once: int
    prepare: Callable[[Server], None]
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def everywhere(self) -> None:
        """Prepare every server that answers, those that are back among them."""
        for member in self.members:
            self._prepared(member)
        self._expect_one()

    def ask(self, asked: Sequence[Asked[T]]) -> Iterator[tuple[int, T]]:
        """(number, result), as they come. What a server owed when it fell silent is asked of
        another: the same request has the same draw.

        Raises `TrainingError` where no server is left, and `HttpError` for a request that a server
        refuses.
        """
        for member in self.members:
            if not member.alive:
                self._prepared(member)
        threads = ThreadPoolExecutor(self.at_once)
        try:
            futures = {threads.submit(self._one, one): n for n, one in enumerate(asked)}
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def _one(self, asked: Asked[T]) -> T:
        while True:
            member = self._take(asked.tokens)
            try:
                return asked.work(member.server)
            except HttpError as error:
                if _refused(error):
                    raise
                self._leave_out(member, error)
            finally:
                with self._lock:
                    member.outstanding -= asked.tokens

    def _take(self, tokens: int) -> Member:
        with self._lock:
            alive = [member for member in self.members if member.alive]
            if alive:
                member = min(alive, key=lambda one: one.outstanding)
                member.outstanding += tokens
                return member
        raise self._nobody()

    def _leave_out(self, member: Member, error: HttpError) -> None:
        with self._lock:
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
            if _refused(error):
                raise
            self._leave_out(member, error)
        else:
            member.alive = True

    def _expect_one(self) -> None:
        if not any(member.alive for member in self.members):
            raise self._nobody()

    def _nobody(self) -> TrainingError:
        tried = "; ".join(f"{one.server.url} ({one.problem})" for one in self.members)
        return TrainingError(
            f"no server answers: {tried}",
            fix="start one (docs/engines.md has the command) and resume the run: strop train "
            "--resume",
        )


def _refused(error: HttpError) -> bool:
    """Whether the server is there and says no, so that no other one would say yes."""
    return error.status is not None and error.status < 500 and error.status not in BUSY
