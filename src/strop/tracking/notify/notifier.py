"""Tells of a run while it goes on: messages leave from threads of their own, and no failure of
theirs reaches the run."""

from __future__ import annotations

import json
import queue
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

from strop.errors import StoppedByAlarm, StoppedBySignal, StropError, TrainingError
from strop.recipe.notify import Event, NotifyRecipe
from strop.tracking.notify.limit import RateLimit
from strop.tracking.notify.message import Message
from strop.tracking.notify.receivers import Receiver, Reply, receiver_of
from strop.tracking.runlog import RunLog

LOG = "notify.jsonl"
END_SECONDS = 15.0
"""How long the end of a run waits for messages that are on their way."""
MOST_WHY = 500
"""Characters of the reason for an end."""


class Notifier:
    """Tells the receivers of one run, pipeline or gate; as a context it tells of the end, too.

    `about` names it in the messages, `facts` go with all of them, and `summary` says at the end
    what came of it. What was sent, failed or was held back is a row of `log`; the next process in
    the same place reads there what counts for the limit. `stops` are exceptions that mean that
    somebody or something ended it, and not that it failed.
    """

    def __init__(
        self,
        recipes: Sequence[NotifyRecipe],
        about: str,
        *,
        where: str,
        log: Path | None = None,
        facts: Mapping[str, Any] = MappingProxyType({}),
        summary: Callable[[], str] = lambda: "",
        stops: tuple[type[BaseException], ...] = (StoppedBySignal, StoppedByAlarm),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.about, self.facts, self.summary, self.stops = about, facts, summary, stops
        self._clock = clock
        self._log = None if log is None else RunLog(log)
        earlier = [] if log is None or not recipes else list(_rows(log))
        self._lines = [_Line(one, receiver_of(one, where), earlier) for one in recipes]
        self._warned: set[str] = set()
        self._failed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lines:
            outcome, why = self._ending(error)
            parts = (f"{self.about} {outcome}{': ' if why else '.'}{why}", self.summary())
            self.tell("end", outcome, " ".join(part for part in parts if part))
            self._close()

    def tell(self, event: Event, outcome: str, text: str, **facts: Any) -> None:
        """Tell everyone who wants this kind of event and was not told too often; returns at
        once."""
        now = self._clock()
        message = Message(event, outcome, self.about, text, {**self.facts, **facts}, now)
        for line in self._lines:
            if event in line.wanted:
                line.tell(message)
        self._settle()

    def _ending(self, error: BaseException | None) -> tuple[str, str]:
        """How it ended, and why."""
        if error is None:
            return "finished", ""
        stopped = isinstance(error, self.stops) or not isinstance(error, Exception)
        if isinstance(error, StropError):
            why = error.problem
        else:
            why = f"{type(error).__name__}: {error}".rstrip(": ")
        why = why if len(why) <= MOST_WHY else f"{why[: MOST_WHY - 4]} ..."
        return "stopped" if stopped else "failed", f"{why}." if why[-1:].isalnum() else why

    def _close(self) -> None:
        """Wait a little for what is on its way, and say what did not arrive."""
        under_way = [sent.reply for line in self._lines for sent in line.sent]
        wait(under_way, END_SECONDS)
        self._settle()
        left = [sent for line in self._lines for sent in line.sent]
        for line in self._lines:
            line.close()
        self._failed += len(left)
        if self._failed:
            count = f"{self._failed} message{'s' if self._failed > 1 else ''}"
            warnings.warn(f"notify: {count} did not arrive", stacklevel=3)

    def _settle(self) -> None:
        """Write down what came back since the last time; warn once of a receiver that fails."""
        for line in self._lines:
            for message, reply in line.settled():
                if reply is None:
                    self._write(line.name, message, "held back", "more than at_most allows")
                    continue
                self._write(line.name, message, "sent" if reply.sent else "failed", reply.said)
                if not reply.sent:
                    self._failed += 1
                    self._warn(
                        line.name, f"{line.name} was not told ({reply.said}); the run goes on"
                    )

    def _write(self, name: str, message: Message, outcome: str, said: str) -> None:
        row = {"time": message.time, "event": message.event, "outcome": message.outcome,
               "to": name, "sent": outcome, "said": said, "text": message.said}  # fmt: skip
        if self._log is None:
            return
        try:
            self._log.path.parent.mkdir(parents=True, exist_ok=True)
            self._log.append(row)
        except (OSError, TrainingError) as error:
            self._warn(LOG, f"{LOG} cannot be written ({error})")

    def _warn(self, name: str, said: str) -> None:
        if name not in self._warned:
            self._warned.add(name)
            warnings.warn(f"notify: {said}", stacklevel=4)


@dataclass(frozen=True, slots=True)
class _Sent:
    """A message on its way."""

    message: Message
    reply: Future[Reply]


class _Line:
    """A receiver with its thread, which begins with the first message and holds up no exit."""

    def __init__(
        self, recipe: NotifyRecipe, receiver: Receiver, earlier: Sequence[Mapping[str, Any]]
    ) -> None:
        self.name, self.wanted, self.receiver = receiver.name, recipe.wanted, receiver
        self.limits = {
            event: RateLimit(recipe.limit, _times(earlier, self.name, event))
            for event in recipe.wanted
        }
        self.sent: list[_Sent] = []
        self._held: list[Message] = []
        self._waiting: queue.SimpleQueue[_Sent | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def tell(self, message: Message) -> None:
        assert message.event != "test"
        limit = self.limits[message.event]
        if not limit.allows(message.time):
            self._held.append(message)
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="notify", daemon=True)
            self._thread.start()
        untold = self.limits.values() if message.event == "end" else [limit]
        held_back = sum(one.taken_back() for one in untold)
        sent = _Sent(replace(message, held_back=held_back), Future())
        self.sent.append(sent)
        self._waiting.put(sent)

    def settled(self) -> Iterator[tuple[Message, Reply | None]]:
        """What is over: held back (`None`), or with what came back."""
        held, self._held = self._held, []
        yield from ((message, None) for message in held)
        before, self.sent = self.sent, []
        for sent in before:
            if sent.reply.done():
                yield sent.message, sent.reply.result()
            else:
                self.sent.append(sent)

    def close(self) -> None:
        self._waiting.put(None)

    def _work(self) -> None:
        while (sent := self._waiting.get()) is not None:
            try:
                reply = self.receiver.send(sent.message)
            except Exception as error:  # noqa: BLE001 - nothing of a message may reach the run
                reply = Reply(self.name, False, type(error).__name__, 0.0)
            sent.reply.set_result(reply)


def _times(rows: Sequence[Mapping[str, Any]], name: str, event: str) -> Iterator[float]:
    """When an earlier process told a receiver of such an event."""
    for row in rows:
        if row.get("to") == name and row.get("event") == event and row.get("sent") != "held back":
            yield float(row["time"])


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows that can be read: the log is no reason for a run not to begin."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        try:
            row = json.loads(line)
            float(row["time"])
        except (ValueError, KeyError, TypeError):
            continue
        yield row
