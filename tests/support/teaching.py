"""What tests of distillation share: informed records, and a dense computation of a loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from strop.demo.world import assistant, solution, user
from strop.distributed.world import World
from strop.losses.distillation import Divergence
from strop.model.load import load_for_inference
from strop.model.network import Policy
from strop.recipe.loading.load import load_recipe
from strop.train.run import train
from strop.types import Tree
from tests.support.runs import EQUATIONS, WriteRows

OWN = "teacher={own: current, prompt: hinted}"


def hinted_rows(write_rows: WriteRows) -> tuple[str, str]:
    """Demonstrations and tasks with a column that tells the teacher more, as overrides."""
    rows = [
        {
            "prompt": user(e),
            "completion": assistant(solution(e)),
            "hinted": [{"role": "user", "content": f"{e.question}. x = {e.x}"}],
        }
        for e in EQUATIONS
    ]
    tasks = [{k: v for k, v in row.items() if k != "completion"} for row in rows]
    files = (write_rows("hinted.jsonl", rows), write_rows("hinted_tasks.jsonl", tasks))
    return f"data={files[0]}", f"data={files[1]}"


def teacher_of(recipes: dict[str, Path]) -> Policy:
    return load_for_inference(str(recipes["distil"].parent / "teacher"))


def dense_loss(policy: Policy, teacher: Policy, trees: Sequence[Tree], loss: Divergence) -> float:
    """The mean divergence by whole distributions."""
    with torch.no_grad():
        student, other = (p.score.distributions(trees) for p in (policy, teacher))
    vocabulary = len(policy.tokenizer)
    mine, theirs = (torch.log_softmax(x[:, :vocabulary], -1) for x in (student, other))
    return float(loss(mine, theirs).mean())


def one_of_several(world: World, path: Path, options: Sequence[str]) -> None:
    train(load_recipe(path, options), world=world)
