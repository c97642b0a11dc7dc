"""Runs that the studio began: processes of their own, which outlive it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from strop.errors import UsageError
from strop.tracking.reading import FAULTS, read_text

LOG_SHOWN = 4000
"""Characters of what a run printed that a page shows: the last ones."""


@dataclass(slots=True)
class Begun:
    """The processes that are still at work, by the folder of their run. Each is waited for by a
    thread, so that one that ended leaves nothing behind."""

    _alive: dict[Path, subprocess.Popen[bytes]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def train(self, recipe: Path, run: Path, options: Sequence[str], log: Path) -> str:
        """Start `strop train` on a recipe; what it prints is appended to `log`. Raises `UsageError`
        where one that the studio began is at work on that run."""
        words = [sys.executable, "-m", "strop", "train", str(recipe), *options]
        with self._lock, log.open("ab") as stream:
            if run in self._alive:
                raise UsageError(f"process {self._alive[run].pid} has just begun with it",
                                 fix="wait for what it says")  # fmt: skip
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
                start_new_session=True, env=os.environ | {"COLUMNS": "100"},
            )  # fmt: skip
            self._alive[run] = process
        threading.Thread(target=self._reap, args=(run, process), daemon=True).start()
        return (f"process {process.pid} begins; what it prints shows on the run's page and in "
                f"{log.name}")  # fmt: skip

    def _reap(self, run: Path, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        with self._lock:
            self._alive.pop(run, None)


def printed(log: Path) -> str:
    """The end of what a run printed; empty where it printed nothing."""
    try:
        return read_text(log)[-LOG_SHOWN:]
    except FAULTS:
        return ""
