"""One run per output folder.

A lock that the kernel holds for the process: it goes when the process does, however it ends, so
that a killed run never blocks. Other machines see it where the file system passes locks on (NFS 4,
Lustre with `flock`); on one that does not, two machines are not kept apart.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from strop.errors import OutputError

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder; raises `OutputError` naming the process and the host that hold it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    handle = _take(path)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "started": started}
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(owner).encode(), 0)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # still held: who waits for it finds that it is gone
        os.close(handle)


def refuse_locked(folder: Path) -> None:
    """Raise `OutputError` if a run is under way in this folder."""
    path = folder / LOCK
    if path.is_file():
        os.close(_take(path))


def _take(path: Path) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            said = os.pread(handle, 1000, 0)
            os.close(handle)
            raise OutputError(
                f"another run works in this folder: {_owner(said)}",
                where=str(path.parent),
                fix="wait for it or stop it, or choose another `output`",
            ) from None
        if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
            return handle
        os.close(handle)


def _owner(said: bytes) -> str:
    """`process 4242 on host box, since 2026-01-02T03:04:05+00:00`; it may not have said yet."""
    try:
        owner = json.loads(said)
        return f"process {owner['pid']} on host {owner['host']}, since {owner['started']}"
    except (ValueError, KeyError, TypeError):
        return "a process that has just begun"
