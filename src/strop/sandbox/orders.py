"""The orders of a worker process that runs a user's code (see `strop.sandbox.workers`)."""

from __future__ import annotations

import os
import signal
import threading
from queue import SimpleQueue
from typing import IO


def orders() -> tuple[SimpleQueue[bytes], IO[str]]:
    """Lines that come in, and where answers are written.

    The pipes are kept for ourselves: the user's code reads an empty input, and its prints go to
    standard error. When the input closes, even during an import or a call, this process ends, and
    its group with it if it leads one, so that no worker outlives its run.
    """
    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    lines: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(asked, lines), daemon=True).start()
    return lines, answers


def _listen(asked: IO[bytes], lines: SimpleQueue[bytes]) -> None:
    for line in asked:
        lines.put(line)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)
