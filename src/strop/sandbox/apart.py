"""Runs work in a forked process with a limit on its CPU time.

A candidate's answer can make the tests' own work endless, even inside one call of C code that no
signal handler interrupts (a set of numbers whose hashes collide). So the tests run in a fork of the
referee that the kernel can kill.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from strop.errors import SandboxError
from strop.sandbox.confine.jail import PR_SET_PDEATHSIG
from strop.sandbox.confine.seccomp import LIBC
from strop.sandbox.suite import TimeUpError

HARD_SECONDS = 0.5
"""CPU seconds between the exception that reports the limit and the kill."""

ENDED_BY = (signal.SIGXCPU, signal.SIGVTALRM, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS)
"""Signals that the work itself causes: too much time, too deep a recursion."""

MOST_TIMES = 500
"""Pieces of work per process, because tests may leave garbage in it."""

ORDER = struct.Struct(">QdB")
"""Length of a message, CPU seconds, and number of links sent with it."""

MOST_LINKS = 4

END = b"\0"
"""Marks the end of the output of a piece of work; the output is text without this byte."""

Work = Callable[[bytes, Sequence[socket.socket], Callable[[bytes], None]], None]
"""Gets a message, links, and a function that sends output."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The output of the work, and why it was ended early, if it was."""

    said: bytes
    ended: str = ""


class Apart:
    """A fork that does one piece of work after another. It is made when first needed, and again
    after one was ended."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._child = 0
        self._times = 0

    def close(self) -> None:
        """End the fork."""
        self._end()
        self._ours.close()
        self._theirs.close()

    def do(
        self, work: Work, message: bytes, links: Sequence[socket.socket], cpu: float, wall: float
    ) -> Outcome:
        """Do a piece of work within `cpu` seconds of CPU time and `wall` seconds of wall clock.

        Raises `SandboxError` if the fork was ended from outside.
        """
        if not self._child or self._times >= MOST_TIMES:
            self._end()
            self._child, self._times = _forked(work, self._theirs, self._ours), 0
        self._times += 1
        done = False
        try:
            order = ORDER.pack(len(message), cpu, len(links))
            socket.send_fds(self._ours, [order], [link.fileno() for link in links])
            self._ours.sendall(message)
            said, ended = self._hear(time.monotonic() + wall)
            done = not ended
        finally:
            status = 0 if done else self._end()
        if not ended:
            return Outcome(said)
        if status in ENDED_BY:
            ended = f"the tests used more than {cpu:g} s of CPU time, or crashed"
        elif ended != "late":
            raise SandboxError(f"the tests' process was ended by signal {status}")
        return Outcome(said, ended if ended != "late" else f"the tests took longer than {wall:g} s")

    def _hear(self, until: float) -> tuple[bytes, str]:
        """The output, and "late" or "ended" if its end did not come."""
        kept = bytearray()
        handle = os.pidfd_open(self._child)
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        poll.register(self._ours, select.POLLIN)
        try:
            while not kept.endswith(END):
                ready = {fd for fd, _ in poll.poll(max(0.0, until - time.monotonic()) * 1000)}
                if not ready:
                    return bytes(kept), "late"
                if self._ours.fileno() in ready:
                    kept += self._ours.recv(65536)
                elif handle in ready:
                    return bytes(kept), "ended"
        finally:
            os.close(handle)
        return bytes(kept[:-1]), ""

    def _end(self) -> int:
        """End the fork and drop its work; returns the signal that had ended it already, or 0."""
        if not self._child:
            return 0
        ended = os.waitid(os.P_PID, self._child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            os.kill(self._child, signal.SIGKILL)
        _, status = os.waitpid(self._child, 0)
        self._child = 0
        self._ours.close()
        self._theirs.close()
        self._ours, self._theirs = socket.socketpair()
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def _forked(work: Work, theirs: socket.socket, ours: socket.socket) -> int:
    parent, child = os.getpid(), os.fork()
    if child:
        return child
    with contextlib.suppress(BaseException):
        ours.close()
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == parent:
            _serve(work, theirs)
    os._exit(1)


def _serve(work: Work, link: socket.socket) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
    while True:
        order, handles, _, _ = socket.recv_fds(link, ORDER.size, MOST_LINKS)
        length, cpu, _ = ORDER.unpack(order)
        message = bytearray()
        while len(message) < length:
            message += link.recv(length - len(message))
        links = [socket.socket(fileno=handle) for handle in handles]
        _limit(cpu)
        try:
            work(bytes(message), links, link.sendall)
        finally:
            _unlimit()
        for one in links:
            one.close()
        link.sendall(END)


def _limit(cpu: float) -> None:
    """Raise an exception after some seconds of CPU time, and kill a little later."""

    def ring(*_: object) -> None:
        raise TimeUpError(f"the tests used more than {cpu:g} s of CPU time")

    signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, cpu)
    signal.setitimer(signal.ITIMER_VIRTUAL, cpu + HARD_SECONDS)
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    last = int(time.process_time() + cpu + HARD_SECONDS) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (last, most))


def _unlimit() -> None:
    signal.signal(signal.SIGPROF, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_PROF, 0.0)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
