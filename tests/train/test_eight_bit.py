"""AdamW with moments in 8 bits: which tensors, how many bytes, and that it trains as AdamW does."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
import torch

from strop.errors import ModelError, RecipeError
from strop.model.load import load_policy
from strop.model.network import Policy
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.model import LoraRecipe, ModelRecipe
from strop.recipe.train.run import OptimRecipe
from strop.train.loop.optim import Optimizers, build_optimizer
from strop.train.loop.state import TrainState
from strop.train.loop.updater import Updater
from strop.train.methods.supervised import SupervisedMethod
from strop.train.run import train
from tests.support.families import tree_of
from tests.support.runs import break_off, metrics, same, weights

EIGHT_BIT = OptimRecipe(learning_rate=1e-3, optimizer="adamw_8bit", weight_decay=0.1)


def of(member: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [p for group in member.param_groups for p in group["params"]]


def steps(folder: Path, recipe: OptimRecipe, count: int) -> tuple[list[float], Policy, Optimizers]:
    """Losses of so many updates on the same trees."""
    policy = load_policy(ModelRecipe(path=str(folder)))
    optimizer = build_optimizer(policy, recipe)
    trees = [tree_of(random.Random(seed), 2, 12) for seed in range(6)]
    method = SupervisedMethod(policy, trees, 10**6)
    updater = Updater(TrainState(policy, optimizer), 1.0)
    losses = [
        updater.step(method.update(range(6)), learning_rate=1e-3, where="step")["loss"].result()
        for _ in range(count)
    ]
    return losses, policy, optimizer


def test_large_tensors_but_embeddings_have_moments_of_eight_bits(wide_folder: Path) -> None:
    """The bytes of their moments: one for each number, and four for each 256."""
    _, policy, optimizer = steps(wide_folder, EIGHT_BIT, 1)
    plain, eight = optimizer.members
    embeddings = policy.model.get_input_embeddings().weight
    assert {p.numel() >= 4096 for p in of(eight)} == {True}
    assert all(p is embeddings or p.numel() < 4096 for p in of(plain))
    assert len(of(plain)) + len(of(eight)) == len(policy.trainable())
    for parameter in of(eight):
        state = eight.state[parameter]
        moments = [state[name] for name in ("state1", "state2", "absmax1", "absmax2")]
        blocks = -(-parameter.numel() // 256)
        assert sum(t.numel() * t.element_size() for t in moments) == 2 * (
            parameter.numel() + 4 * blocks
        )
    assert {plain.state[p]["exp_avg"].dtype for p in of(plain)} == {torch.float32}


def test_decay_is_that_of_adamw(wide_folder: Path) -> None:
    """Matrices decay, norms and biases do not."""
    _, _, optimizer = steps(wide_folder, EIGHT_BIT, 1)
    for member in optimizer.members:
        for group in member.param_groups:
            assert {p.dim() > 1 for p in group["params"]} == {group["weight_decay"] == 0.1}


def test_the_curve_is_adamws(wide_folder: Path) -> None:
    """Rounded moments change the curve, but far less than the loss falls."""
    exact, *_ = steps(wide_folder, OptimRecipe(learning_rate=1e-3, weight_decay=0.1), 30)
    found, *_ = steps(wide_folder, EIGHT_BIT, 30)
    fell = exact[0] - exact[-1]
    assert fell > 0.2 * exact[0]
    apart = [abs(one - other) for one, other in zip(exact, found, strict=True)]
    assert 0 < max(apart) < 0.03 * fell


def test_stopped_and_resumed_is_bit_identical(recipes: dict[str, Path], wide_folder: Path) -> None:
    options = [f"model.path={wide_folder}", "run.steps=7", "optim.learning_rate=1e-3",
               "optim.optimizer=adamw_8bit"]  # fmt: skip
    whole = train(load_recipe(recipes["sft"], [*options, "output=runs/whole"]))
    recipe = load_recipe(recipes["sft"], [*options, "output=runs/parts"])
    break_off(recipe, 3)  # checkpoints stand at 2 and 4
    parts = train(recipe, resume=True)
    assert same(weights(whole), weights(parts))
    assert metrics(whole.parent) == metrics(parts.parent)


def test_the_state_comes_back_to_the_bit(wide_folder: Path) -> None:
    _, _, optimizer = steps(wide_folder, EIGHT_BIT, 3)
    kept = optimizer.tensors()
    _, _, other = steps(wide_folder, EIGHT_BIT, 1)
    assert not same(kept, other.tensors())
    other.load_tensors(kept)
    assert same(kept, other.tensors())


def test_an_adapter_that_is_too_small_is_refused(wide_folder: Path) -> None:
    policy = load_policy(ModelRecipe(path=str(wide_folder), lora=LoraRecipe(rank=1)))
    with pytest.raises(ModelError, match=r"no trained tensor is so large(.|\n)*optimizer: adamw"):
        build_optimizer(policy, EIGHT_BIT)


def test_a_missing_library_is_said_before_anything_is_read(
    recipes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    recipe = load_recipe(recipes["sft"], ["optim.optimizer=adamw_8bit", "data=absent.jsonl"])
    with pytest.raises(ModelError, match=r"needs bitsandbytes(.|\n)*strop\[quantize\]"):
        train(recipe)


def test_sharded_moments_are_refused(recipes: dict[str, Path]) -> None:
    with pytest.raises(RecipeError, match="adamw_8bit quantizes moments of whole tensors"):
        load_recipe(recipes["sft"], ["optim.optimizer=adamw_8bit", "run.distributed.shard=full"])
