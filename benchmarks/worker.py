"""One side in a process of its own, doing a step whenever it is told to."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.cases import Entrant, Run
from benchmarks.sides import Batch, Place, Side, Step, Stop


@dataclass(frozen=True, slots=True)
class Told:
    """A step with what it took: `seconds`, and the process's peak memory so far in bytes."""

    step: Step
    seconds: float
    peak: int


@dataclass(frozen=True, slots=True)
class Order:
    """What the coordinator asks for: one more step, a check of a batch, the machine's rate."""

    what: str
    batch: Batch | None = None


def serve(link: Connection, run: Run, entrant: Entrant, place: Place) -> None:
    """Load, report, then obey until told to stop. Everything printed goes to the side's log."""
    place.scratch.mkdir(parents=True, exist_ok=True)
    log = os.open(place.scratch / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    before = resident()
    side = _side(run, entrant, place)
    side.load()
    link.send(("ready", resident() - before))
    clock = Clock(link, side)
    forget_peak()
    try:
        clock.wait()
        side.run(clock.tick)
    except Stop:
        pass
    link.send(("done", 0))


class Clock:
    """Times the steps between orders."""

    def __init__(self, link: Connection, side: Side) -> None:
        self.link, self.side = link, side
        self.started = 0.0

    def tick(self, describe: Callable[[], Step]) -> None:
        """A step is done: tell of it, then wait for the next order."""
        settle()
        seconds = time.perf_counter() - self.started
        self.link.send(("step", Told(describe(), seconds, peak())))
        self.wait()

    def wait(self) -> None:
        """Answer questions until a step is wanted."""
        while True:
            order: Order = self.link.recv()
            if order.what == "step":
                break
            if order.what == "stop":
                raise Stop
            given = () if order.batch is None else (order.batch,)
            self.link.send((order.what, self.side.answers[order.what](*given)))
        self.started = time.perf_counter()


def _side(run: Run, entrant: Entrant, place: Place) -> Side:
    sampler = run.case.kind == "sampler"
    if entrant.system == "strop":
        from benchmarks.ours import StropSampler, StropTrainer

        return StropSampler(run, entrant, place) if sampler else StropTrainer(run, entrant, place)
    from benchmarks.theirs import Generate, TrlTrainer

    return Generate(run, entrant, place) if sampler else TrlTrainer(run, entrant, place)


def resident() -> int:
    """Bytes of this process in memory now."""
    return _status("VmRSS")


def peak() -> int:
    """The most memory since `forget_peak`: of the device where there is one, else resident."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return _status("VmHWM")


def forget_peak() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    Path("/proc/self/clear_refs").write_text("5")


def settle() -> None:
    """Wait for the device: its work is part of the step."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _status(name: str) -> int:
    """A figure of /proc/self/status, which is in KiB, as bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)
