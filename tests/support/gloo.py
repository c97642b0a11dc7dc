"""A piece of work done by several real processes that meet over gloo."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from strop.distributed.processes import Processes
from strop.distributed.world import World
from strop.errors import OtherProcessError, StropError
from tests.support.processes import BOUND, CONTEXT

Work = Callable[..., Any]


@dataclass(frozen=True)
class Raised:
    """What a process raised in place of returning: `Raised("DataError", "pairs.jsonl:3: ...", 2)`;
    `rank` is that of the process it heard of."""

    kind: str
    said: str
    exit_code: int
    rank: int | None


def in_processes(count: int, work: Work, *arguments: Any) -> list[Any]:
    """`work(world, *arguments)` in `count` processes; what each returned or raised, by
    rank; None of one that was ended."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        running = [
            CONTEXT.Process(target=_one, args=(folder, rank, count, work, arguments))
            for rank in range(count)
        ]
        for process in running:
            process.start()
        for process in running:
            process.join(BOUND * 4)
            process.kill()
        found = [folder / f"{rank}.pt" for rank in range(count)]
        return [torch.load(file, weights_only=False) if file.exists() else None for file in found]


def _one(folder: Path, rank: int, count: int, work: Work, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ["RANK"] = str(rank)
    dist: Any = torch.distributed
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=count)
    world: World = Processes(dist.new_group(backend="gloo"))
    try:
        with world.together():
            result = work(world, *arguments)
    except StropError as error:
        heard_of = error.rank if isinstance(error, OtherProcessError) else None
        result = Raised(type(error).__name__, str(error), error.exit_code, heard_of)
    torch.save(result, folder / f"{rank}.pt")
