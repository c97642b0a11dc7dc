"""A process that imports a user's file once and forks a process for every episode:
`python -m strop.rollout.own.server HANDLE FILE NAME`.

An order on the control socket brings one end of a socket pair: the fork answers on it, JSON line by
JSON line. When the other end is closed the fork is killed, with all that it started, also in
sessions of their own; when the fork ends by itself, the other end is closed. The server ends, with
all forks, when the control socket closes. Standard library only, beside what the user's file
imports.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import json
import os
import resource
import select
import signal
import socket
import sys
import threading
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from strop.errors import RewardError
from strop.rewards.own.functions import own_names
from strop.rollout.own.describe import described, described_agent
from strop.rollout.own.instance import Instance
from strop.sandbox.confine.jail import PR_SET_PDEATHSIG
from strop.sandbox.confine.seccomp import LIBC

PR_SET_CHILD_SUBREAPER = 36
"""Linux's `prctl`: who has lost the parent becomes a child of the process that asks for this."""

LOOK_EVERY = 0.1
"""Seconds between looks at whether the run is still there, while a file is imported."""


@dataclass(frozen=True, slots=True)
class Fork:
    """A process: its id, a handle that is readable once it has ended, and our copy of its end of
    the link, which hangs up once the other end is closed."""

    pid: int
    handle: int
    link: socket.socket


def main() -> None:
    os.setsid()  # Ctrl-C must not end it: the run still has a step to finish
    control = socket.socket(fileno=int(sys.argv[1]))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # prints of the user's code go to standard error
    path, name = Path(sys.argv[2]), sys.argv[3]
    sys.path.insert(0, str(path.parent))  # as if the file were run: it may import its neighbours
    imported = threading.Event()
    watching = threading.Thread(target=_end_with, args=(control, imported))
    watching.start()
    try:
        names = own_names(path)
    except RewardError as error:
        control.sendall(_line({"error": [error.problem, error.where, error.fix]}))
        return
    finally:
        imported.set()
        watching.join()  # a process of several threads is not forked
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # each fork takes two files
    gc.collect()
    gc.freeze()  # a fork's collections then leave the shared pages alone
    control.sendall(_line({}))
    Server(control, names, name, soft).serve()


def _end_with(control: socket.socket, imported: threading.Event) -> None:
    """End all, if the run ends while the user's file is still being imported."""
    poll = select.poll()
    poll.register(control, 0)  # that the other end is closed is always said
    while not imported.is_set():
        if poll.poll(LOOK_EVERY * 1000):
            os.killpg(0, signal.SIGKILL)


class Server:
    """Forks when told to, kills whom nobody listens to any more, and collects who ended."""

    def __init__(
        self, control: socket.socket, names: dict[str, Any], name: str, files: int
    ) -> None:
        self.control, self.names, self.name, self.files = control, names, name, files
        self.poll = select.poll()
        self.poll.register(control, select.POLLIN)
        self.forks: dict[int, Fork] = {}
        self.imported = _children()
        """What the user's file started when it was imported."""
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def serve(self) -> None:
        try:
            more = True
            while more:
                ready = {place for place, _ in self.poll.poll()}
                # ends first: a new fork's files may get the numbers of an ended one's
                for fork in {self.forks[place] for place in ready - {self.control.fileno()}}:
                    self._end(fork)
                if self.control.fileno() in ready:
                    more = self._ordered()
        finally:
            for fork in set(self.forks.values()):
                self._end(fork)

    def _ordered(self) -> bool:
        """Fork for an order; whether more of them can come."""
        try:
            order, handles, _, _ = socket.recv_fds(self.control, 1, 1)
        except ConnectionError:
            return False
        if not order:
            return False
        link = socket.socket(fileno=handles[0])
        parent, pid = os.getpid(), os.fork()
        if pid == 0:
            self._become_instance(link, parent)
        handle = os.pidfd_open(pid)
        fork = Fork(pid, handle, link)
        self.forks[handle] = self.forks[link.fileno()] = fork
        self.poll.register(handle, select.POLLIN)
        self.poll.register(link, 0)  # that the other end is closed is always said
        return True

    def _end(self, fork: Fork) -> None:
        """Kill a fork and whom it started, if they still are, and forget it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(fork.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(fork.pid, signal.SIGKILL)  # it may not have come to lead its group yet
        os.waitpid(fork.pid, 0)
        for place in (fork.handle, fork.link.fileno()):
            self.poll.unregister(place)
            del self.forks[place]
        os.close(fork.handle)
        fork.link.close()
        while orphans := _children() - self.imported - {one.pid for one in self.forks.values()}:
            for pid in orphans:  # what it had started in other sessions
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def _become_instance(self, link: socket.socket, parent: int) -> NoReturn:
        """In the fork: answer until the link closes."""
        end = os._exit  # the user's code may replace the module's
        try:
            os.setsid()
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # they come to the server with it
            if os.getppid() == parent:
                self.control.close()
                for fork in set(self.forks.values()):
                    os.close(fork.handle)
                    fork.link.close()
                _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
                resource.setrlimit(resource.RLIMIT_NOFILE, (self.files, hard))
                answer_all(link, self.names, self.name)
        except Exception:  # noqa: BLE001 - whatever it is, only this process ends by it
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            sys.stdout.flush()
            end(0)


def answer_all(link: socket.socket, names: dict[str, Any], name: str) -> None:
    """Answer orders, each with its number, until the link closes."""
    made = names.get(name)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    instance = Instance(made, loop)
    orders: IO[bytes] = link.makefile("rb")
    for line in orders:
        order = json.loads(line)
        if order["do"] == "describe":
            describe = described_agent if order["agent"] else described
            answer = asdict(describe(made, name, _offered(names)))
        else:
            answer = instance.answer(order)
        link.sendall(_line({"order": order["order"], **answer}))


def _children() -> set[int]:
    """The processes whose parent this one is."""
    lists = (place.read_text() for place in Path("/proc/self/task").glob("*/children"))
    return {int(pid) for one in lists for pid in one.split()}


def _offered(names: dict[str, Any]) -> list[str]:
    """What the file itself defines that could be meant."""
    own = names["__name__"]
    return [
        n
        for n, value in names.items()
        if (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == own
        and not n.startswith("_")
    ]


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


if __name__ == "__main__":
    main()
