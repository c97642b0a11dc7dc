"""Runs whose weights are cut over real processes: what each holds, how they are killed and resumed,
what is refused."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from strop.distributed.world import ALONE, Counts, World
from strop.errors import RecipeError
from strop.losses.reduce import Loss
from strop.model.load import load_policy
from strop.model.reference import Reference
from strop.model.sharding import gathered, mesh_of, own_part, shard, whole_weights
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.model import ModelRecipe
from strop.recipe.train.run import DistributedRecipe, OptimRecipe
from strop.train.loop.optim import build_optimizer
from strop.train.loop.state import TrainState
from strop.train.loop.updater import MicroBatchLoss, Update, Updater
from strop.train.preflight.alike import expect_world
from strop.train.run import train
from strop.types import Branch, Tree
from tests.support.gloo import in_processes
from tests.support.models import Recorder
from tests.support.resumed import SHARDED, chain, largest_difference
from tests.support.runs import same

FULL = DistributedRecipe(shard="full")
TREES = [Tree((1, 2, 3 + n), (Branch((5, 6, 7), (True,) * 3),)) for n in range(4)]


def held(world: World, model: str) -> dict[str, Any]:
    """After one step of AdamW on three records, of which rank 1 of two reads one more."""
    network = load_policy(ModelRecipe(path=model))
    shard(network, mesh_of(FULL, world.size, "cpu"))
    optimizer = build_optimizer(network, OptimRecipe(learning_rate=1e-3))
    reference = Reference(network)
    before = reference.scores(TREES).logprobs_N
    (-network.score(TREES).logprobs_N.sum()).backward()
    optimizer.step(1e-3)
    optimizer.zero_grad()
    with torch.no_grad():
        after = network.score(TREES).logprobs_N
        with whole_weights(network):
            for _ in range(world.rank):  # nobody waits for these
                network.score(TREES)
            whole = network.score(TREES).logprobs_N
    moments = [t for name, t in optimizer.tensors().items() if not name.endswith("step")]
    return {
        "parameters": sum(own_part(p).numel() for p in network.trainable()),
        "moments": sum(own_part(t).numel() for t in moments),
        "before": before,
        "after": after,
        "whole": whole,
        "reference": reference.scores(TREES).logprobs_N,
        "weights": {n: gathered(p.detach()) for n, p in network.model.named_parameters()},
    }


def test_each_process_holds_its_rows_and_reads_as_one(model_folder: Path) -> None:
    network = load_policy(ModelRecipe(path=str(model_folder)))
    shapes = [p.shape for p in network.model.parameters()]
    parameters = list(network.trainable())
    (-2 * network.score(TREES).logprobs_N.sum()).backward()  # two processes read the same
    optimizer = build_optimizer(network, OptimRecipe(learning_rate=1e-3))
    start = network.score(TREES).logprobs_N.detach()
    optimizer.step(1e-3)
    expected = network.score(TREES).logprobs_N.detach()
    for rank, seen in enumerate(in_processes(2, held, str(model_folder))):
        assert isinstance(seen, dict), seen
        # the first process has the larger half of the rows of a weight
        rows = [shape[0] - shape[0] // 2 if rank == 0 else shape[0] // 2 for shape in shapes]
        mine = sum(n * shape[1:].numel() for n, shape in zip(rows, shapes, strict=True))
        assert (seen["parameters"], seen["moments"]) == (mine, 2 * mine)
        assert 0.45 < mine / sum(p.numel() for p in parameters) < 0.55
        assert torch.equal(seen["before"], start)
        assert torch.allclose(seen["after"], expected, atol=1e-5)
        assert (seen["after"] - start).abs().max() > 1e-2
        assert torch.equal(seen["whole"], seen["after"])
        assert torch.equal(seen["reference"], seen["before"])
        for name, weight in network.model.named_parameters():
            assert torch.allclose(seen["weights"][name], weight, atol=1e-6), name


def test_killed_and_resumed_by_as_many_or_by_one(recipes: dict[str, Path], tmp_path: Path) -> None:
    path = recipes["sft"]
    unbroken = chain(path, tmp_path / "unbroken", [(2, True, None)])
    again = chain(path, tmp_path / "again", [(2, True, 5), (2, True, None)])
    assert same(unbroken, again)
    alone = chain(path, tmp_path / "alone", [(1, False, None)])
    assert largest_difference(unbroken, alone) < 1e-5
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "again" / "final")
    assert torch.equal(saved.state_dict()["model.norm.weight"], again["model.norm.weight"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("sft", []),
        ("dpo", ["model.lora.rank=4"]),
        ("ppo", []),
        ("reward_model", ["model.lora.rank=4"]),
    ],
)
@pytest.mark.parametrize(
    "starts",
    [
        [(4, True, 3), (2, True, 7), (3, True, None)],
        [(2, False, 5), (2, True, None)],
        [(2, True, 5), (2, False, None)],
    ],
)
def test_resumed_by_others(
    method: str, options: list[str], starts: list[Any], recipes: dict[str, Path], tmp_path: Path
) -> None:
    """By other numbers of processes, by ones that are not sharded, and by ones that now are."""
    alone = chain(recipes[method], tmp_path / "alone", [(1, False, None)], *options)
    several = chain(recipes[method], tmp_path / "several", starts, *options)
    assert largest_difference(alone, several) < 1e-5


class Of:
    """A world of so many processes, as far as a check looks at it."""

    def __init__(self, size: int) -> None:
        self.size = size


@pytest.mark.parametrize(
    ("options", "size", "said"),
    [
        (["run.distributed.replicas=2", "run.distributed.shard=hybrid"], 2, "nothing to cut"),
        (["run.distributed.replicas=2", "run.distributed.shard=hybrid"], 5, "2 equal groups"),
        ([SHARDED], 1, "this is one"),
        ([SHARDED, "run.distributed.cpu_offload=true", "model.device=cpu"], 2, "there already"),
        ([SHARDED, "optim.optimizer=muon"], 2, "whole matrices"),
        ([SHARDED, "model.lora.dora=true"], 2, "norms of whole matrices"),
    ],
)
def test_refused_before_anything_is_computed(
    options: list[str], size: int, said: str, recipes: dict[str, Path]
) -> None:
    with pytest.raises(RecipeError, match=said):
        expect_world(load_recipe(recipes["sft"], options), Of(size))  # type: ignore[arg-type]


def one_teaches(world: World, model: str) -> torch.Tensor:
    """The gradient of a step in which the first process has two forwards and no other has any."""
    network = load_policy(ModelRecipe(path=model))
    if world.size > 1:
        shard(network, mesh_of(FULL, world.size, "cpu"))
    recorder = Recorder(network.trainable())

    def losses(counts: Counts) -> list[MicroBatchLoss]:
        own = TREES[:2] if world.rank == 0 else []
        return [
            lambda tree=tree: Loss(-network.score((tree,)).logprobs_N.sum() / counts["n"], {})
            for tree in own
        ]

    counts = {"n": 6.0 if world.rank == 0 else 0.0}
    updater = Updater(TrainState(network, recorder), 0.5, world)
    updater.step(Update(counts, losses), learning_rate=1e-3, where="step 1")
    return recorder.seen[0]


def test_processes_without_anything_to_learn_from_take_part(model_folder: Path) -> None:
    alone = one_teaches(ALONE, str(model_folder))
    assert float(alone.norm()) == pytest.approx(0.5, rel=1e-4)  # clipped
    for found in in_processes(2, one_teaches, str(model_folder)):
        assert torch.allclose(found, alone, atol=1e-6)


def on_a_full_disk(world: World, path: Path, output: Path) -> None:
    """A run of which the second process can write no large file."""
    if world.rank:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    train(load_recipe(path, [f"output={output}", SHARDED, "run.steps=6"]), world=world)


def test_a_disk_that_is_full_for_one_process_ends_all_with_one_sentence(
    recipes: dict[str, Path], tmp_path: Path
) -> None:
    first, second = in_processes(2, on_a_full_disk, recipes["sft"], tmp_path / "run")
    assert first.kind == "TrainingError"
    assert "the checkpoint of step 2 could not be written: process 1: " in first.said
    assert "File too large" in first.said
    assert "make room, then go on with --resume" in first.said
    assert "Traceback" not in first.said
    assert second.kind in ("TrainingError", "OtherProcessError")
    assert not list((tmp_path / "run").glob("checkpoint-*"))
