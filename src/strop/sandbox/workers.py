"""Killable worker processes that answer one JSON line with another."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import IO, Any

Request = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """A worker's answer, or why there is none; `slow` if it took too long."""

    answer: Any = None
    failed: str | None = None
    slow: bool = False


class WorkerEndedError(Exception):
    """A worker's process ended, or was killed because it took too long."""


class Workers:
    """Up to `count` processes of one command, started when first needed, restarted when they fall.

    Args:
        command: a program that says "ready", then reads a JSON line and writes one, until its
            input closes.
        count: processes; default: one for each core.
        starts_within: seconds until it has to say "ready".
        shows_errors: whether what it writes to standard error is seen.
        grouped: whether it leads a group of its own, which is killed with it: all that a user's
            code started. Ctrl-C does not reach it then: the run still has a step to finish.
    """

    def __init__(
        self,
        command: Sequence[str],
        count: int | None = None,
        *,
        starts_within: float = 60.0,
        shows_errors: bool = False,
        grouped: bool = False,
    ) -> None:
        self._count = count or os.cpu_count() or 1
        self._all = [
            _Worker(list(command), starts_within, shows_errors=shows_errors, grouped=grouped)
            for _ in range(self._count)
        ]
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        for worker in self._all:
            self._idle.put(worker)
        self._over = False
        atexit.register(self.end)

    def ask(self, requests: Sequence[Request], seconds: float) -> list[Reply]:
        """A reply for every request, in order. A request whose worker ends is repeated once; a
        request that takes longer than `seconds` is not repeated."""
        if len(requests) == 1:
            return [self._one(requests[0], seconds)]
        waiting: SimpleQueue[int] = SimpleQueue()
        replies = [Future[Reply]() for _ in requests]
        for number in range(len(requests)):
            waiting.put(number)
        over = threading.Event()

        def work() -> None:
            while not over.is_set():
                try:
                    number = waiting.get_nowait()
                except Empty:
                    return
                try:
                    replies[number].set_result(self._one(requests[number], seconds))
                except BaseException as error:  # noqa: BLE001 - the one who waits has to be told
                    replies[number].set_exception(error)

        try:
            for _ in range(min(self._count, len(requests))):
                # a daemon, because the end of the program waits for all other threads
                threading.Thread(target=work, daemon=True).start()
            return [reply.result() for reply in replies]
        finally:
            over.set()

    def _one(self, request: Request, seconds: float) -> Reply:
        worker = self._idle.get()
        try:
            if self._over:
                return Reply(failed="the program ends")
            for last in (False, True):
                try:
                    return Reply(worker.ask(request, seconds))
                except TimeoutError:
                    worker.kill()
                    return Reply(failed=f"no answer within {seconds:g} s", slow=True)
                except WorkerEndedError as error:
                    worker.kill()
                    if last or self._over:
                        return Reply(failed=str(error))
            raise AssertionError("two tries end in one of the returns above")
        except BaseException:
            # a signal interrupted the wait, so a late answer must not go to the next request
            worker.kill()
            raise
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End all processes, once what they are asked is answered."""
        atexit.unregister(self.end)
        for _ in range(self._count):
            worker = self._idle.get()
            worker.kill()
            self._idle.put(worker)

    def end(self) -> None:
        """Kill all processes, whatever they are at: nobody waits for the answers any more."""
        self._over = True
        for worker in self._all:
            worker.end()


class _Worker:
    """One process, or none yet."""

    def __init__(
        self, command: list[str], starts_within: float, *, shows_errors: bool, grouped: bool
    ) -> None:
        self._command, self._starts_within, self._grouped = command, starts_within, grouped
        self._errors = None if shows_errors else subprocess.DEVNULL
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""

    def ask(self, request: Request, seconds: float) -> Any:
        packed = json.dumps(request).encode() + b"\n"
        process = self._started()
        until = time.monotonic() + seconds
        try:
            self._write(process, packed, until)
            return json.loads(self._line(process, until))
        except BrokenPipeError:
            raise WorkerEndedError("a worker ended") from None
        except ValueError:
            raise WorkerEndedError("a worker answered with no JSON") from None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._rest = b""
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=self._errors, bufsize=0, start_new_session=self._grouped,
            )  # fmt: skip
            if self._line(self._process, time.monotonic() + self._starts_within) != b"ready":
                raise WorkerEndedError("a worker did not start")
        return self._process

    def _write(self, process: subprocess.Popen[bytes], packed: bytes, until: float) -> None:
        """Write with a time limit, because a worker that does not read must not block its
        caller."""
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        rest = memoryview(packed)
        while rest:
            _wait(process.stdin, selectors.EVENT_WRITE, until)
            rest = rest[os.write(process.stdin.fileno(), rest) :]

    def _line(self, process: subprocess.Popen[bytes], until: float) -> bytes:
        assert process.stdout is not None
        while b"\n" not in self._rest:
            _wait(process.stdout, selectors.EVENT_READ, until)
            part = os.read(process.stdout.fileno(), 65536)
            if not part:
                raise WorkerEndedError("a worker ended while it judged")
            self._rest += part
        line, self._rest = self._rest.split(b"\n", 1)
        return line

    def end(self) -> None:
        """Kill the process from another thread than the one that may be waiting for its answer."""
        process = self._process
        if process is not None and process.returncode is None:
            self._kill(process)

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        if not self._grouped:
            process.kill()
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def kill(self) -> None:
        if self._process is None:
            return
        self._kill(self._process)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None


def _wait(pipe: IO[bytes], event: int, until: float) -> None:
    """Wait for the pipe; raises `TimeoutError` after `until`."""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, event)
        if not selector.select(max(0.0, until - time.monotonic())):
            raise TimeoutError
