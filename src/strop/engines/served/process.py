"""A server that strop starts for a run, in another process, and ends with it in any case."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from strop.engines.served.command import FILES, Command
from strop.errors import HttpError, TrainingError

POLLED_EVERY = 0.25
"""Seconds between two looks at a server that does not answer yet."""
ENDED_WITHIN = 25.0
"""Seconds: what `strop_keep.py` gives a command to end in order, and some for itself."""
LAST_LINES, LAST_BYTES = 20, 16_384
"""So much of a log is shown where its server died."""


def free_port() -> int:
    """A port of this machine that nobody listens to now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def started(
    command: Command, look: Callable[[], object], log: Path, *, seconds: float
) -> Iterator[None]:
    """Run a command from the moment at which `look` raises no `HttpError` any more.

    Its output is appended to `log`. It leads a process group, which is gone at the end of the
    block, and when this process dies in whatever way: it is held by a pipe. Raises `TrainingError`
    with the log's last lines where it ends by itself or does not answer within `seconds`.
    """
    keep = [sys.executable, "-I", str(FILES / "strop_keep.py"), *command.arguments]
    with log.open("ab") as output:
        before = output.tell()
        process = subprocess.Popen(
            keep,
            env={**os.environ, **command.environment},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait(process, look, log, before, seconds)
        yield
    finally:
        _end(process)


def _wait(
    process: subprocess.Popen[bytes],
    look: Callable[[], object],
    log: Path,
    before: int,
    seconds: float,
) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            look()
        except HttpError:
            pass
        else:
            return
        if (status := process.poll()) is not None:
            raise _failed(f"the server ended with status {status} before it answered", log, before)
        if time.monotonic() > until:
            raise _failed(
                f"the server did not answer within {seconds:g} s", log, before,
                "raise rollout.engine.start_seconds if it only needs longer",
            )  # fmt: skip
        time.sleep(POLLED_EVERY)


def _failed(problem: str, log: Path, before: int, more: str = "") -> TrainingError:
    said = _last_lines(log, before)
    shown = "\n    ".join(said) if said else "(it said nothing)"
    fix = "mend what the log says" + (f", or {more}" if more else "")
    return TrainingError(f"{problem}; its last lines:\n    {shown}", where=str(log), fix=fix)


def _last_lines(log: Path, before: int) -> list[str]:
    """What was written to a log since it had so many bytes, the end of it."""
    with log.open("rb") as file:
        file.seek(max(before, log.stat().st_size - LAST_BYTES))
        return file.read().decode(errors="replace").splitlines()[-LAST_LINES:]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let go of the server; what is left of its group after the time to end in order is killed."""
    if process.stdin is not None:
        process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(ENDED_WITHIN)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
