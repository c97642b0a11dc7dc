"""A small process without secrets that forks one jailed candidate at a time.

It is started before any test, answer or candidate is known, with an empty environment. For each
order it gets the candidate's end of the link and its output pipe, forks, shuts the child in, and
kills it when its time, its folder or the referee ends. Standard library only.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import select
import signal
import socket
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from strop.sandbox import candidate
from strop.sandbox.confine import jail, landlock
from strop.sandbox.confine.syscalls import MACHINES, Machine

COMMON = ("bisect", "collections", "copy", "datetime", "decimal", "fractions", "functools",
          "heapq", "itertools", "json", "math", "operator", "random", "re", "statistics", "string",
          "typing")  # fmt: skip
"""Imported once, here, rather than by every candidate."""

LOOK_EVERY = 0.05
"""Seconds between looks at what the candidate uses."""

MOST_FILES, MOST_THREADS = 1000, 64


def main() -> None:
    """`forkserver HANDLE LANDLOCK [FOLDER]`: serve orders from the socket on that file descriptor
    until it closes, in that empty folder or a new one. Writes "ready" once, then a report after
    each candidate's end. For each candidate the referee sends one byte: to end it, or to
    acknowledge its report."""
    control = socket.socket(fileno=int(sys.argv[1]))
    for name in COMMON:
        __import__(name)
    gc.collect()
    gc.freeze()  # a candidate's collections then leave the shared pages alone
    parent, given = os.getpid(), sys.argv[3:]
    folder = Path(given[0] if given else tempfile.mkdtemp(prefix="strop-candidate-"))
    try:
        rules = landlock.ruleset(readable(), folder) if sys.argv[2] == "landlock" else None
        machine = MACHINES[platform.machine()]
        control.sendall(b"ready\n")
        while True:
            order, handles, _, _ = socket.recv_fds(control, 4096, 3)
            if not order:
                return
            limits = jail.Limits(**json.loads(order))
            child = os.fork()
            if child == 0:
                _become_candidate(handles, folder, limits, machine, rules, parent)
            for handle in handles:
                os.close(handle)
            ended, acknowledged = _watch(child, control, folder, limits)
            empty(folder)
            control.sendall(json.dumps(ended).encode() + b"\n")
            if not acknowledged and not control.recv(1):
                return
    except (BrokenPipeError, ConnectionError):
        return
    finally:
        empty(folder)
        if not given:
            folder.rmdir()


def readable() -> list[Path]:
    """What a candidate may read: the interpreter, its libraries, nothing of the user's."""
    places = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib")}
    places |= {Path("/usr/lib"), Path("/lib"), Path("/lib64"), Path("/etc/ld.so.cache"),
               Path("/usr/share/zoneinfo"), Path("/dev/null"), Path("/dev/urandom")}  # fmt: skip
    return sorted(place for place in places if place.exists())


def _become_candidate(
    handles: list[int],
    folder: Path,
    limits: jail.Limits,
    machine: Machine,
    rules: int | None,
    parent: int,
) -> None:
    """In the child: wire up, shut in, run. Never returns."""
    end = os._exit  # the candidate may replace the module's
    try:
        link, given, output = handles
        os.setsid()
        os.chdir(folder)
        os.dup2(given, 0)
        os.dup2(output, 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # warnings are no output
        _close_all_but(link, *([rules] if rules is not None else []))
        sys.stdin = os.fdopen(0, "r", encoding="utf-8", errors="replace")
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="replace")
        sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="replace")
        sys.argv = ["candidate.py"]
        # without /proc threads cannot be counted, so they are not allowed
        threads = os.path.exists(f"/proc/{os.getpid()}/task")
        jail.shut_in(limits, machine, rules, threads, parent)
        candidate.run(
            link
        )  # it first reports that the jail is closed; after an earlier failure it reports nothing
    finally:
        end(0)


def _close_all_but(*kept: int) -> None:
    """Close what was inherited, save 0, 1, 2 and these."""
    start = 3
    for handle in [*sorted(kept), 65536]:
        if start < handle:  # of an empty range Python 3.11 closes all
            os.closerange(start, handle)
        start = handle + 1


def _watch(
    child: int, control: socket.socket, folder: Path, limits: jail.Limits
) -> tuple[dict[str, object], bool]:
    """Wait for the child's end, or kill it at a limit. Returns the report, and whether the referee
    has sent its byte."""
    began = time.monotonic()
    deadline, last = began + limits.wall, began + jail.MOST_WAITING * limits.wall
    handle = os.pidfd_open(child)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    poll.register(control, select.POLLIN | select.POLLHUP)
    over_cpu = f"it used more than {limits.seconds:g} s of CPU time"
    reason, acknowledged = "", False
    while not reason:
        left = deadline - time.monotonic()
        ready = {fd for fd, _ in poll.poll(max(0.0, min(LOOK_EVERY, left)) * 1000)}
        if handle in ready:
            break
        if control.fileno() in ready:
            reason, acknowledged = "the referee had seen enough", True
            control.recv(1)
        elif left <= 0:
            deadline = time.monotonic() + limits.wall - _seconds_at_work(child, began)
            if deadline <= time.monotonic() or time.monotonic() > last:
                reason = f"it took longer than {limits.wall:g} s"
        elif _cpu_seconds(child) > limits.seconds:
            reason = over_cpu
        elif holds_too_much(folder, limits.folder):
            reason = f"it wrote more than {limits.folder} bytes or {MOST_FILES} files"
        elif _threads(child) > MOST_THREADS:
            reason = f"it started more than {MOST_THREADS} threads"
    if reason:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    os.close(handle)
    ended = os.waitstatus_to_exitcode(status)
    if not reason and ended == -signal.SIGKILL and used.ru_utime + used.ru_stime > limits.seconds:
        reason = over_cpu  # the kernel's limit came first: this process had to wait for a CPU
    return {"status": ended, "killed": reason}, acknowledged


def _seconds_at_work(child: int, began: float) -> float:
    """Seconds since the start without those in which it waited for a CPU, if the kernel reports
    them."""
    try:
        waited = int(Path(f"/proc/{child}/schedstat").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        waited = 0
    return time.monotonic() - began - waited / 1e9


def _cpu_seconds(child: int) -> float:
    """CPU time of all its threads, by the clock that the kernel keeps for a process (see
    clock_getcpuclockid(3)); needs no /proc."""
    try:
        return time.clock_gettime((~child << 3) | 2)
    except OSError:
        return 0.0  # it has just ended


def _threads(child: int) -> int:
    try:
        return len(os.listdir(f"/proc/{child}/task"))
    except OSError:
        return 0


def holds_too_much(folder: Path, most: int) -> bool:
    """Whether a folder holds more than `most` bytes or too many files, or something unreadable (a
    tree deeper than the longest path, a folder without read permission)."""
    size, waiting, seen = 0, [str(folder)], 0
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    seen += 1
                    size += entry.stat(follow_symlinks=False).st_size
                    if seen > MOST_FILES or size > most:
                        return True
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except OSError:
            return True
    return False


def empty(folder: Path) -> None:
    """Remove everything in a folder that no other process uses any more.

    Goes down and up (by "..") with one open folder, so neither recursion nor open files nor paths
    grow with the depth.
    """
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    entered: list[str] = []
    waiting = [_unlink_files(here)]
    while waiting[-1] or entered:
        if waiting[-1]:
            entered.append(waiting[-1].pop())
            os.chmod(entered[-1], 0o700, dir_fd=here)
            here = _step(here, entered[-1])
            waiting.append(_unlink_files(here))
        else:
            waiting.pop()
            here = _step(here, "..")
            os.rmdir(entered.pop(), dir_fd=here)
    os.close(here)


def _step(here: int, name: str) -> int:
    """Open `name` relative to an open folder, and close that folder."""
    there = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
    os.close(here)
    return there


def _unlink_files(here: int) -> list[str]:
    """Remove everything but folders; returns the names of the folders."""
    folders = []
    for name in os.listdir(here):
        try:
            os.unlink(name, dir_fd=here)
        except IsADirectoryError:
            folders.append(name)
    return folders


if __name__ == "__main__":
    main()
