"""`strop engine serve` in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def process(model_folder: Path) -> Iterator[str]:
    command = [sys.executable, "-P", "-m", "strop.cli", "engine", "serve", str(model_folder),
               "--port", "0"]  # fmt: skip
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    said = running.stdout.readline()
    assert said.startswith(f"serving {model_folder} at http://127.0.0.1:")
    yield said.split()[-1]
    os.kill(running.pid, signal.SIGTERM)
    assert running.wait(20) == 143
