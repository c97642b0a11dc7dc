"""CPU time: what a machine with other work to do does not stretch, as it does time on the wall."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds() -> float:
    """Of this process, of its children that have ended, and of its descendants that live."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    alive = sum(map(_seconds_of, descendants(os.getpid())))
    return time.process_time() + ended.ru_utime + ended.ru_stime + alive


def descendants(pid: int) -> list[int]:
    """Its children that live, their children, and so on."""
    found: list[int] = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            direct = [int(child) for child in children.read_text().split()]
        except FileNotFoundError:  # the thread has ended
            continue
        for child in direct:
            found += [child, *descendants(child)]
    return found


def _seconds_of(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:  # it has ended
        return 0.0
    # user and system time of the process, and of its children that have ended (proc(5), 14 to 17)
    return sum(map(int, fields[11:15])) / TICKS


@contextmanager
def at_most(seconds: float, what: str = "this") -> Iterator[None]:
    """The block and the processes it starts or asks take no more CPU time than this."""
    before = cpu_seconds()
    yield
    spent = cpu_seconds() - before
    assert spent < seconds, f"{what} took {spent:.2f} s of CPU time, more than {seconds:g}"
