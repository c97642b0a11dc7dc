"""Real processes over gloo: what they share, and what they learn of each other's errors."""

from __future__ import annotations

import os
import re
import time
from typing import Any

import pytest
import torch

from strop.distributed.world import World
from strop.errors import DataError
from strop.losses.metrics import Mean, Sum, results
from tests.support.gloo import in_processes


def shared(world: World) -> dict[str, Any]:
    """What three processes see of sums of things that each can be told apart in."""
    rank = world.rank
    calls: list[int] = []
    one, two, three = (torch.nn.Parameter(torch.zeros(2)) for _ in range(3))
    one.grad = torch.tensor([1.0, 10.0**rank])
    if rank == 1:
        two.grad = torch.tensor([0.5, -0.5])
    world.add_gradients([one, two, three])
    gathered = world.gathered(torch.full((rank,), float(rank)))
    metrics: dict[str, Any] = {"loss": Sum(rank + 1.0), "kl": Mean.of(float(rank), rank)}
    if rank == 2:
        metrics["seen/by_one"] = Mean.of(torch.tensor(4.0), 2)
    return {
        "total": world.total({"tokens": 10 + rank, **({"pairs": 3} if rank == 0 else {})}),
        "gathered": (gathered.values_N.tolist(), gathered.own),
        "gradients": [None if p.grad is None else p.grad.tolist() for p in (one, two, three)],
        "metrics": results(world.merged(metrics)),
        "first": world.first(lambda: calls.append(rank) or f"from {rank}"),  # type: ignore[func-returns-value]
        "calls": calls,
        "exchanged": world.exchanged(rank * "x"),
    }


def test_three_processes_see_the_same() -> None:
    every = in_processes(3, shared)
    for rank, seen in enumerate(every):
        assert seen["total"] == {"tokens": 33, "pairs": 3}
        start = sum(range(rank))
        assert seen["gathered"] == ([1.0, 2.0, 2.0], slice(start, start + rank))
        # nobody has a gradient of the third: an optimizer has to leave it alone
        assert seen["gradients"] == [[3.0, 111.0], [0.5, -0.5], None]
        assert seen["metrics"] == {"loss": 6.0, "kl": pytest.approx(5 / 3), "seen/by_one": 4.0}
        assert seen["first"] == "from 0"
        assert seen["calls"] == ([0] if rank == 0 else [])
        assert seen["exchanged"] == ["", "x", "xx"]


def fails(world: World, ranks: tuple[int, ...], waits: str) -> None:
    if world.rank in ranks:
        raise DataError("is torn", where="pairs.jsonl:3")
    if waits == "first":
        world.first(lambda: time.sleep(1.0))
    world.total({"tokens": 1})


@pytest.mark.parametrize("waits", ["total", "first"])
@pytest.mark.parametrize("ranks", [(0,), (2,), (0, 1, 2), (1, 2)])
def test_an_error_of_one_process_ends_all(ranks: tuple[int, ...], waits: str) -> None:
    """Each process that fails says why, once; the others say who stopped, with its exit code."""
    for rank, error in enumerate(in_processes(3, fails, ranks, waits)):
        own = rank in ranks and (rank == 0 or 0 not in ranks)
        assert error.kind == ("DataError" if own else "OtherProcessError"), error
        assert "pairs.jsonl:3: is torn" in error.said
        assert error.exit_code == 2
        if not own:
            assert f"process {ranks[0]} of this run stopped" in error.said


def dies(world: World) -> None:
    if world.rank == 1:
        os._exit(9)
    world.total({"tokens": 1})


def test_a_process_that_is_gone_is_noticed() -> None:
    first, second, third = in_processes(3, dies)
    assert second is None
    for other in (first, third):
        assert (other.kind, other.rank, other.exit_code) == ("OtherProcessError", None, 1)
        assert "is gone, or does not answer" in other.said
        assert not re.search(r"\.cc:|GLHF", other.said), other.said
