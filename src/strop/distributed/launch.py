"""Starts the processes of a run on this machine, each with the same command.

torchrun does this for several machines; it ends what a signal leaves unfinished after 30 seconds
and knows one exit code. A run that is told to end saves first, however long its step takes, and its
exit code says how it ended, so on one machine strop starts its processes itself.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from types import FrameType

from strop.errors import TrainingError, UsageError

NAMES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells each process through its environment."""

GRACE = 40.0
"""Seconds that the others have to end by themselves once one has failed."""
HURRY = 5.0
"""Seconds that all have to end once they were told twice: one that waits for another in torch's
code does not see signals."""

POLLED_EVERY = 0.1


def launched() -> bool:
    """Whether this process was started as one of several."""
    return "WORLD_SIZE" in os.environ


def expect_place(environment: Mapping[str, str]) -> None:
    """Raise `UsageError` where the environment does not say which process of how many this is."""
    fix = "start all processes with torchrun or --nproc, or unset WORLD_SIZE"
    for name in NAMES:
        if name not in environment:
            raise UsageError(f"WORLD_SIZE is set and {name} is not", fix=fix)
    numbers = {}
    for name in NAMES:
        if name != "MASTER_ADDR":
            told = environment[name]
            if not (told.isascii() and told.isdecimal()):
                raise UsageError(f"{name} is {told!r}, which is no number", fix=fix)
            numbers[name] = int(told)
    size, rank, port = (numbers[name] for name in ("WORLD_SIZE", "RANK", "MASTER_PORT"))
    if not size:
        raise UsageError("WORLD_SIZE is 0: no process takes part", fix=fix)
    if rank >= size:
        raise UsageError(
            f"RANK {rank} is none of WORLD_SIZE {size} processes, 0 to {size - 1}", fix=fix
        )
    if not 0 < port < 2**16:
        raise UsageError(f"MASTER_PORT {port} is no port", fix=fix)


def speaks() -> bool:
    """Whether this process is the one that speaks to the terminal."""
    return os.environ.get("RANK", "0") == "0"


def launch(arguments: Sequence[str], processes: int) -> int:
    """Run `python -m strop ARGUMENTS` in so many processes; returns the exit code.

    SIGTERM and SIGINT are passed on. When one process fails the others end within a minute. Raises
    `TrainingError` where one was ended from outside, which leaves no message of its own.
    """
    if launched():
        raise UsageError(
            "--nproc starts processes, and this one was started by torchrun as one of several",
            fix="leave --nproc out",
        )
    running = _start(arguments, processes)
    told: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        told.append(number)
        for process in running:
            if process.poll() is None:
                process.send_signal(number)

    before = {n: signal.signal(n, forward) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        return _wait(running, told)
    finally:
        for process in running:
            process.kill()
            process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(arguments: Sequence[str], processes: int) -> list[subprocess.Popen[bytes]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    threads = max(1, (os.cpu_count() or 1) // processes)
    return [
        subprocess.Popen(
            [sys.executable, "-m", "strop", *arguments],
            env={
                "OMP_NUM_THREADS": str(threads),
                **os.environ,
                **{name: str(value) for name, value in shared.items()},
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "STROP_PARENT": str(os.getpid()),
            },
            start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on
        )
        for rank in range(processes)
    ]


def _wait(running: Sequence[subprocess.Popen[bytes]], told: Sequence[int]) -> int:
    """The exit code of the first that failed, or 0; those that outlive it by `GRACE` are killed, as
    are those that outlive the second of the signals that they were `told` by `HURRY`."""
    failed, hurried = None, False
    until = float("inf")
    while any(process.poll() is None for process in running):
        now = time.monotonic()
        if failed is None:
            failed = next((r for r, p in enumerate(running) if p.poll() not in (None, 0)), None)
            until = until if failed is None else min(until, now + GRACE)
        if len(told) > 1 and not hurried:
            hurried, until = True, min(until, now + HURRY)
        if now > until:
            for process in running:
                process.kill()
        time.sleep(POLLED_EVERY)
    codes = [process.wait() for process in running]
    if hurried and any(codes):
        return 128 + told[0]
    killed = [(rank, code) for rank, code in enumerate(codes) if code < 0]
    ended = next(((rank, code) for rank, code in killed if failed in (None, rank)), None)
    if ended is not None:
        rank, code = ended
        name = signal.Signals(-code).name
        why = " (out of memory, perhaps)" if -code == signal.SIGKILL else ""
        raise TrainingError(
            f"process {rank} of {len(running)} was ended by {name}{why}",
            fix="go on with --resume; what was saved is whole",
        )
    return codes[failed] if failed is not None else max(codes)


def end_with_parent() -> None:
    """End this process when the one that launched it is gone, in whatever way."""
    parent = os.environ.get("STROP_PARENT")
    if parent is None:
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
