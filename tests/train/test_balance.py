"""The load-balancing loss of a mixture's routers: transformers' own number, over the whole step."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.mixtral import modeling_mixtral
from transformers.models.qwen3_moe import modeling_qwen3_moe

from strop.distributed.world import ALONE, Alone
from strop.errors import RecipeError, TrainingError, UsageError
from strop.losses.metrics import results
from strop.model.attention import recomputed_alike
from strop.model.balance import watched
from strop.model.logprobs import TreeScorer
from strop.model.network import Policy
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.run import OptimRecipe
from strop.train.loop.optim import build_optimizer
from strop.train.loop.state import TrainState
from strop.train.loop.updater import Updater
from strop.train.methods.balance import ROWS, Balance
from strop.train.methods.supervised import SupervisedMethod
from strop.train.run import train
from strop.types import Branch, Tree
from tests.support.experts import CHOSEN, EXPERTS, mixture
from tests.support.families import tree_of

TOKENS = 40
COEFFICIENT = 0.5


class TwoProcesses(Alone):
    size = data_size = 2


def policy_of(name: str = "qwen3_moe") -> Policy:
    model = mixture(name)
    return Policy(model, None, False, TreeScorer(model))


def trees_of(branches: int) -> list[Tree]:
    return [tree_of(random.Random(seed), branches, 9) for seed in range(5)]


def slopes(policy: Policy) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in policy.model.parameters() if p.grad is not None])


def step(policy: Policy, trees: list[Tree], max_tokens: int) -> tuple[float, torch.Tensor]:
    """The loss of one step, and all gradients."""
    method = SupervisedMethod(
        policy, trees, max_tokens, balance=Balance(policy, COEFFICIENT, ALONE)
    )
    update = method.update(range(len(trees)))
    values = [loss().value for loss in update.losses(update.counts)]
    policy.model.zero_grad()
    sum(values).backward()  # type: ignore[union-attr]
    return float(sum(values)), slopes(policy)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("qwen3_moe", modeling_qwen3_moe.load_balancing_loss_func),
        ("mixtral", modeling_mixtral.load_balancing_loss_func),
    ],
)
def test_one_forward_is_transformers_own_number(name: str, theirs: Any) -> None:
    """On padded rows, which it leaves out by their mask, and its gradient."""
    policy, trees = policy_of(name), trees_of(branches=1)
    rows = [torch.tensor([*tree.trunk, *tree.branches[0].ids]) for tree in trees]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    ones = [torch.ones_like(row) for row in rows]
    mask = torch.nn.utils.rnn.pad_sequence(ones, batch_first=True)
    read = policy.model(input_ids=ids, attention_mask=mask, output_router_logits=True)
    expected = theirs(read.router_logits, EXPERTS, CHOSEN, mask)
    expected.backward()
    wanted = slopes(policy)
    policy.model.zero_grad()
    balance = Balance(policy, COEFFICIENT, ALONE)
    found = balance.part(balance.scored(trees)[1], {})
    found.backward()
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    assert (slopes(policy) - wanted).norm() <= 1e-5 * wanted.norm()


def test_a_prompt_that_answers_share_counts_once() -> None:
    policy, trees = policy_of(), trees_of(branches=3)
    with watched(policy.score.causal_lm) as watch:
        policy.score(trees)
    logits = tuple(logits for logits, _ in watch.seen)
    assert {len(one) for one in logits} == {sum(map(len, trees))}
    load = watch.load(sum(map(len, trees)))
    theirs = modeling_qwen3_moe.load_balancing_loss_func(logits, EXPERTS, CHOSEN)
    assert float(load.balance(load.chosen_E, load.rows)) == pytest.approx(float(theirs), rel=1e-5)


def test_many_forwards_are_one() -> None:
    """Experts are counted over the step; the mean of the forwards' own losses is another number."""
    policy, trees = policy_of(), trees_of(branches=2)
    whole, expected = step(policy, trees, 10**6)
    cut, found = step(policy, trees, TOKENS)
    assert cut == pytest.approx(whole, rel=1e-5)
    assert (found - expected).norm() <= 1e-5 * expected.norm()
    balance = Balance(policy, COEFFICIENT, ALONE)
    apart = [float(balance.part(balance.scored([tree])[1], {})) for tree in trees]
    together = float(balance.part(balance.scored(trees)[1], {}))
    assert abs(sum(apart) / len(apart) - together) > 0.01 * together


def test_two_processes_are_one() -> None:
    policy, trees = policy_of(), trees_of(branches=1)
    whole, expected = step(policy, trees, 10**6)
    balance = Balance(policy, COEFFICIENT, TwoProcesses())
    method = SupervisedMethod(policy, trees, 10**6, balance=balance)
    updates = [method.update(own) for own in ([0, 3], [1, 2, 4])]
    names = updates[0].counts
    assert names.keys() == updates[1].counts.keys(), "they are added up by their names"
    assert method.update([]).counts.keys() == names.keys(), "also of one that has nothing to read"
    counts = {name: sum(update.counts[name] for update in updates) for name in names}
    losses = [loss() for update in updates for loss in update.losses(counts)]
    policy.model.zero_grad()
    for loss in losses:
        loss.value.backward()
    assert sum(float(loss.value) for loss in losses) == pytest.approx(whole, rel=1e-5)
    assert (slopes(policy) - expected).norm() <= 1e-5 * expected.norm()


def test_layers_that_are_computed_twice_are_counted_once() -> None:
    policy, trees = policy_of(), trees_of(branches=2)
    whole, expected = step(policy, trees, 10**6)
    policy.model.train()
    again = {"use_reentrant": False, "context_fn": recomputed_alike(policy.model)}
    policy.model.gradient_checkpointing_enable(again)
    found, gradient = step(policy, trees, 10**6)
    assert found == pytest.approx(whole, rel=1e-5)
    assert (gradient - expected).norm() <= 1e-5 * expected.norm()


def test_training_evens_the_load_out() -> None:
    """It falls towards the number of experts a token, which is that of an even load."""
    policy, trees = policy_of(), trees_of(branches=1)
    optimizer = build_optimizer(policy, OptimRecipe(learning_rate=1e-2))
    balance = Balance(policy, 5.0, ALONE)
    method = SupervisedMethod(policy, trees, 10**6, balance=balance)
    updater = Updater(TrainState(policy, optimizer), 1.0)
    logged = [
        results(updater.step(method.update(range(5)), learning_rate=1e-2, where="step"))
        for _ in range(12)
    ]
    assert logged[0]["aux_loss"] > logged[-1]["aux_loss"] > 0.95 * CHOSEN
    assert logged[-1]["aux_loss"] - CHOSEN < 0.5 * (logged[0]["aux_loss"] - CHOSEN)


def test_padding_is_not_taken_for_tokens() -> None:
    policy = policy_of()
    policy.score.by_tree = False
    trees = [Tree((1, 2), (Branch((3,), (True,)), Branch((4, 5, 6), (True,) * 3)))]
    with pytest.raises(TrainingError, match=r"the routers read \[10\] tokens and not 6"):
        Balance(policy, COEFFICIENT, ALONE).scored(trees)


def test_nothing_is_counted_apart_for_a_single_forward() -> None:
    policy, trees = policy_of(), trees_of(branches=1)
    balance = Balance(policy, COEFFICIENT, ALONE)
    assert ROWS not in SupervisedMethod(policy, trees, 10**6, balance=balance).update([0]).counts


@pytest.mark.parametrize("method", ["dpo", "grpo", "reward_model"])
def test_methods_that_do_not_read_it_refuse_it(method: str, recipes: dict[str, Path]) -> None:
    recipe = load_recipe(recipes[method], ["model.router_aux_loss_coef=0.01"])
    with pytest.raises(RecipeError, match=rf"method {method} does not read it"):
        train(recipe)


def test_a_dense_model_refuses_it(recipes: dict[str, Path]) -> None:
    recipe = load_recipe(recipes["sft"], ["model.router_aux_loss_coef=0.01"])
    with pytest.raises(UsageError, match="router_aux_loss_coef is set, but Qwen3ForCausalLM"):
        train(recipe)
