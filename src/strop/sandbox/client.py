"""The referee's end of a fork server: starts a candidate, calls it, learns how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import IO, Any, Self

from strop.errors import SandboxError
from strop.sandbox.apart import Apart
from strop.sandbox.asked import Candidate
from strop.sandbox.candidate import SHUT_IN
from strop.sandbox.confine.jail import MOST_WAITING, Limits
from strop.sandbox.values.codec import NotPlainError, send

START_SECONDS = 20.0
GRACE_SECONDS = 2.0
"""How long a closed fork server may take to end."""

ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""The candidate's whole environment; with it libraries start no threads."""


@dataclass(frozen=True, slots=True)
class Printed:
    """How a program ended: what it printed, its exit status, and why it was killed, if it was."""

    output: str
    status: int
    killed: str


class Sandbox:
    """A fork server of its own; one candidate at a time. Closing it ends everything in it."""

    def __init__(self, command: Callable[[int], list[str]]) -> None:
        self._command = command
        self._twin: Sandbox | None = None
        self.apart = Apart()
        """Where the tests of its candidates run."""
        ours, theirs = socket.socketpair()
        self._control = ours
        with theirs:
            self._server = subprocess.Popen(
                command(theirs.fileno()), pass_fds=[theirs.fileno()], env=ENVIRONMENT, cwd="/",
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )  # fmt: skip
        ours.settimeout(START_SECONDS)
        self._reports = ours.makefile("rb")
        try:
            self._expect(self._reports.readline() == b"ready\n")
        except OSError:
            self._expect(False)

    @property
    def pid(self) -> int:
        """The process of the fork server."""
        return self._server.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> list[str]:
        """End the fork server, which empties its folder first; returns its lines of standard
        error."""
        self.apart.close()
        if self._twin is not None:
            self._twin.close()
        self._reports.close()
        self._control.close()
        try:
            _, said = self._server.communicate(timeout=GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._server.kill()
            _, said = self._server.communicate()
        except ValueError:  # closed before
            return []
        return said.decode(errors="replace").strip().splitlines()

    def twin(self) -> Sandbox:
        """Another sandbox of the same kind, for code that must not share a candidate's."""
        if self._twin is None:
            self._twin = Sandbox(self._command)
        return self._twin

    @contextlib.contextmanager
    def execute(self, code: str, limits: Limits) -> Iterator[Candidate]:
        """Code whose functions can be called. Raises `CandidateError` if its top level fails."""
        with self.prepare(limits) as candidate:
            candidate.load(code)
            yield candidate

    @contextlib.contextmanager
    def prepare(self, limits: Limits) -> Iterator[Candidate]:
        """A candidate that has no code yet."""
        with open(os.devnull, "r+b", buffering=0) as nothing:
            link = self._order(limits, nothing.fileno(), nothing.fileno())
        with link:
            try:
                yield Candidate(link)
            finally:
                self._tell()
                self._report()

    def run_program(self, code: str, given: str, limits: Limits) -> Printed:
        """Code as a script that reads `given` and prints; standard error is not kept."""
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb") as printed, tempfile.TemporaryFile() as stdin:
            stdin.write(given.encode(errors="replace"))
            stdin.seek(0)
            with os.fdopen(writing, "wb"):
                link = self._order(limits, stdin.fileno(), writing)
            with link:
                with contextlib.suppress(OSError, NotPlainError):
                    send(link.fileno(), {"code": code, "program": True})
                link.shutdown(socket.SHUT_WR)
                output, flooded = _drain(printed, limits)
                if flooded:
                    self._tell()
                report = self._report()
                if not flooded:
                    self._tell()
        killed = f"it printed more than {limits.output} bytes" if flooded else report["killed"]
        return Printed(output, report["status"], killed)

    def _order(self, limits: Limits, given: int, output: int) -> socket.socket:
        """The link to a new jailed candidate. Raises `SandboxError` if it could not be jailed."""
        link, theirs = socket.socketpair()
        order = [json.dumps(asdict(limits)).encode()]
        try:
            with theirs:
                socket.send_fds(self._control, order, [theirs.fileno(), given, output])
            self._control.settimeout(MOST_WAITING * limits.wall + START_SECONDS)
            link.settimeout(START_SECONDS)
            ready = link.recv(len(SHUT_IN)) == SHUT_IN
            link.settimeout(None)
        except OSError:
            ready = False
        if not ready:
            link.close()
            self._expect(False, "a candidate could not be shut in, so it was not run")
        return link

    def _tell(self) -> None:
        try:
            self._control.send(b"x")
        except OSError:
            self._expect(False)

    def _report(self) -> dict[str, Any]:
        line = b""
        with contextlib.suppress(OSError):
            line = self._reports.readline()
        self._expect(line.endswith(b"\n"))
        report: dict[str, Any] = json.loads(line)
        return report

    def _expect(self, fine: bool, otherwise: str = "the fork server ended") -> None:
        """If `fine` is false, close the sandbox and raise `SandboxError`."""
        if fine:
            return
        said = self.close()
        raise SandboxError(f"{otherwise}: {said[-1] if said else 'without a word'}")


def _drain(printed: IO[bytes], limits: Limits) -> tuple[str, bool]:
    """The output until the pipe closes (the fork server ends a program that takes too long), and
    whether it exceeded the limit."""
    kept = bytearray()
    while len(kept) <= limits.output:
        part = os.read(printed.fileno(), 65536)
        if not part:
            return kept.decode(errors="replace"), False
        kept += part
    return kept.decode(errors="replace"), True
