"""A process that all others wait for is named; one that is a little slower is not."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from strop.distributed.stragglers import WINDOW, Stragglers
from strop.distributed.world import World
from tests.support.gloo import in_processes


def said_of(waits: Sequence[float], seconds: float, steps: int = 2 * WINDOW) -> list[str]:
    """What is said when a step takes so many seconds, of which the processes wait for each other
    so many."""
    now = [0.0]
    stragglers, said = Stragglers(lambda: now[0]), []
    for step in range(steps + 1):
        found = stragglers.see([step * wait for wait in waits])
        said += [] if found is None else [found]
        now[0] += seconds
    return said


def test_who_waits_least_is_waited_for_and_said_once() -> None:
    (said,) = said_of([0.5, 0.1, 0.5], seconds=1.0)
    assert said.startswith(f"process 1 is slow: the others waited 40% of the last {WINDOW} steps")


@pytest.mark.parametrize(
    "waits",
    [
        [0.3, 0.1, 0.3],  # a fifth of the time
        [0.5, 0.1, 0.1],  # one fast process is no fault of the others
        [0.5, 0.5, 0.5],  # all wait for what they share
        [0.0],  # nobody to wait for
    ],
)
def test_nobody_is_named_without_a_reason(waits: list[float]) -> None:
    assert said_of(waits, seconds=1.0) == []


def test_too_few_steps_say_nothing() -> None:
    assert said_of([0.9, 0.0], seconds=1.0, steps=WINDOW - 1) == []


def planted(world: World) -> list[str]:
    """Process 2 sleeps in every step."""
    stragglers, said = Stragglers(), []
    for _ in range(WINDOW + 1):
        if world.rank == 2:
            time.sleep(0.02)
        found = stragglers.see(world.exchanged(world.waited))
        said += [] if found is None else [found]
    return said


def test_a_process_that_sleeps_is_found_by_all() -> None:
    for said in in_processes(3, planted):
        assert len(said) == 1
        assert said[0].startswith("process 2 is slow")
