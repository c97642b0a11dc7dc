"""One run of several starts over real processes, some of which are killed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from strop.distributed.world import ALONE, World
from strop.recipe.loading.load import load_recipe
from strop.train.run import train
from tests.support.gloo import in_processes
from tests.support.runs import final_weights

SHARDED = "run.distributed.shard=full"


def runs(world: World, path: Path, options: Sequence[str], dies_at: int | None) -> None:
    def on_step(record: Any) -> None:
        if record.step == dies_at:
            os._exit(9)

    recipe = load_recipe(path, options)
    train(recipe, resume=Path(recipe.output).exists(), force=True, world=world, on_step=on_step)


def chain(
    path: Path, output: Path, starts: Sequence[tuple[int, bool, int | None]], *options: str
) -> dict[str, torch.Tensor]:
    """One run of several starts: (processes, whether sharded, the step at which one is killed)."""
    for count, sharded, dies_at in starts:
        shared = [f"output={output}", "run.steps=8", *options]
        shared += [SHARDED] if sharded else []
        if count == 1:
            runs(ALONE, path, shared, None)
        else:
            every = in_processes(count, runs, path, shared, dies_at)
            assert dies_at is not None or every == [None] * count
    return final_weights(output)


def largest_difference(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    assert left.keys() == right.keys()
    return max(float((left[n].float() - right[n].float()).abs().max()) for n in left)
