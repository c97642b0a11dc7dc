"""The server that forks a process for every episode, and such a process, seen from the run."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import pickle
import platform
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from strop.errors import WorldError
from strop.rollout.environment import FaultError
from strop.rollout.tools.tries import FailedError
from strop.types import Task

LOADING = 300.0
"""Seconds that importing the user's file, or describing its class, may take."""

LONGEST_LINE = 16 * 2**20
"""Bytes of an answer."""


class ForkServer:
    """Imports the user's file in a process of its own, and begins an episode's process in
    milliseconds; started again if it ends. Raises `WorldError` for a file that cannot be
    imported, and where the system lets nobody end all that a process has started."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self._lock = threading.Lock()
        self._started = 0
        if platform.system() != "Linux":
            raise WorldError(
                f"a class, a user or an agent of one's own needs Linux, and this is "
                f"{platform.system()}",
                where=str(path),
                fix="run strop on Linux; a container is enough",
            )
        self._start()

    def describe(self, *, agent: bool = False) -> dict[str, Any]:
        """What the class, or the agent's function, is (`Description`). Blocks; raises `WorldError`
        if it cannot be used."""
        try:
            said = self._described(agent)
            if said["problem"]:
                raise WorldError(
                    said["problem"], where=said["place"] or str(self._path), fix=said["fix"]
                )
        except WorldError:
            self.close()
            raise
        return said

    def _described(self, agent: bool) -> dict[str, Any]:
        order = {"do": "describe", "agent": agent, "order": 0}
        ours, theirs = socket.socketpair()
        with ours:
            self._send(theirs)
            ours.settimeout(LOADING)
            try:
                ours.sendall(json.dumps(order).encode() + b"\n")
                answer: dict[str, Any] = json.loads(ours.makefile("rb").readline())
            except (OSError, ValueError) as error:
                late = f"was not made within {LOADING:g} s"
                raise WorldError(
                    f"{self._name} "
                    + (late if isinstance(error, TimeoutError) else "ended its process when made"),
                    where=str(self._path),
                    fix="make one by hand: import the file in Python and call it",
                ) from None
        return answer

    async def fork(self) -> EpisodeProcess:
        """A new process. Raises `FailedError` where there is none."""
        for last in (False, True):
            started = self._started
            ours, theirs = socket.socketpair()
            try:
                self._send(theirs)
            except OSError as error:
                ours.close()
                if last:
                    raise FailedError("crashed", f"its server ended: {error}") from None
                await asyncio.to_thread(self._start_again, started)
            else:
                reader, writer = await asyncio.open_unix_connection(sock=ours, limit=LONGEST_LINE)
                return EpisodeProcess(reader, writer)
        raise AssertionError("the second try ends in one of the above")

    def close(self) -> None:
        """End the server and all that it forked, and wait for it."""
        self._control.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _send(self, theirs: socket.socket) -> None:
        with theirs:
            socket.send_fds(self._control, [b"f"], [theirs.fileno()])

    def _start_again(self, started: int) -> None:
        with self._lock:
            if self._started > started:
                return  # somebody else did
            self.close()
            try:
                self._start()
            except WorldError as error:
                raise FaultError(str(error)) from None

    def _start(self) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "strop.rollout.own.server", str(theirs.fileno()),
                       str(self._path), self._name]  # fmt: skip
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        self._started += 1
        self._control.settimeout(LOADING)
        with contextlib.suppress(OSError):
            line = self._control.makefile("rb").readline()
            if line:
                self._read(json.loads(line))
                return
        self.close()
        raise WorldError(
            f"the process that imports the file ended, or did not finish within {LOADING:g} s",
            where=str(self._path),
            fix="import the file by hand: python FILE",
        )

    def _read(self, said: dict[str, Any]) -> None:
        if "error" in said:
            self.close()
            problem, where, fix = said["error"]
            raise WorldError(problem, where=where, fix=fix)


class EpisodeProcess:
    """One episode's process. Closing it ends it, whatever it is at."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer, self._orders = reader, writer, 0

    async def ask(self, order: dict[str, Any], seconds: float | None) -> dict[str, Any]:
        """The answer to an order, within so many seconds if there is a limit. Raises `FailedError`,
        after which the process is closed, as it is when the wait is called off."""
        self._orders += 1
        try:
            async with asyncio.timeout(seconds):
                self._writer.write(json.dumps({**order, "order": self._orders}).encode() + b"\n")
                await self._writer.drain()
                line = await self._reader.readline()
            answer = self._read(line)
        except TimeoutError:
            self.close()
            raise FailedError("hung", f"no answer within {seconds:g} s") from None
        except OSError:
            self.close()
            raise FailedError("crashed", "its process ended") from None
        except ValueError:  # too long a line, or no JSON
            self.close()
            raise FailedError("garbled", "its answer cannot be read") from None
        except BaseException:
            self.close()
            raise
        return answer

    def _read(self, line: bytes) -> dict[str, Any]:
        if not line:
            raise ConnectionResetError
        answer = json.loads(line)
        if not isinstance(answer, dict) or answer.get("order") != self._orders:
            raise ValueError("an answer to no order")
        if "garbled" in answer:
            raise FailedError("garbled", answer["garbled"])
        if "failed" in answer:
            raise FailedError("failed", answer["failed"])
        return answer

    @property
    def closed(self) -> bool:
        return self._writer.is_closing()

    def close(self) -> None:
        # what was not sent yet is dropped: a process that hangs would never read it
        self._writer.transport.abort()


def row_of(task: Task) -> str:
    """A task's prompt and columns for a process."""
    return base64.b64encode(pickle.dumps({"prompt": task.prompt, **task.columns})).decode()
