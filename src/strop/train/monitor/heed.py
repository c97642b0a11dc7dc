"""A run heeds who watches it: it waits, goes on or ends as `control.json` says."""

from __future__ import annotations

import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from strop.distributed.world import World
from strop.tracking.control import CONTROL, Wish, forget, wish_of
from strop.train.loop.signals import Signals

POLL = 0.2
"""Seconds between two looks at the file while a run waits."""


def heard(signals: Signals, folder: Path, world: World, waited: float) -> tuple[Wish, list[float]]:
    """What all processes agree on after a step: the wish that rank 0 reads, and how long each has
    waited for the others. A signal that one of them got is everybody's from now on; a wish to stop
    is one."""
    own: Wish = wish_of(folder) if world.rank == 0 else "go"
    told = world.exchanged((signals.number or 0, waited, own))
    signals.number = max(number for number, _, _ in told) or None
    wish = told[0][2]
    if wish == "stop" and signals.number is None:
        warnings.warn(f"{CONTROL} asks this run to stop", stacklevel=2)
        world.first(lambda: forget(folder))
        signals.number = signal.SIGTERM
    return wish, [seconds for _, seconds, _ in told]


def wait_while_paused(
    signals: Signals,
    folder: Path,
    world: World,
    step: int,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return when the run is to go on or to end. The processes ask each other meanwhile, so that
    none of them gives the others up."""
    warnings.warn(
        f"paused after step {step}, which is saved: it goes on when {CONTROL} is gone", stacklevel=2
    )
    wish: Wish = "pause"
    while wish == "pause" and signals.number is None:
        sleep(POLL)
        wish, _ = heard(signals, folder, world, 0.0)
