"""The load-balancing loss of a mixture's routers: transformers' own number, over the whole step."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.mixtral import modeling_mixtral
from transformers.models.qwen3_moe import modeling_qwen3_moe

from strop.distributed.world import ALONE, Alone, World
from strop.errors import RecipeError, TrainingError, UsageError
from strop.losses.metrics import results
from strop.model.attention import recomputed_alike
from strop.model.balance import Load, watched
from strop.model.logprobs import TreeScorer
from strop.model.network import Policy
from strop.model.reference import Reference
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.methods import METHODS
from strop.recipe.train.preference import DpoObjective
from strop.recipe.train.run import OptimRecipe
from strop.train.loop.offline import OfflineMethod
from strop.train.loop.optim import build_optimizer
from strop.train.loop.state import RunningMean, TrainState
from strop.train.loop.updater import Update, Updater
from strop.train.methods.balance import ROWS, Balance, BalancedLearner, BalancedRecords, part_of
from strop.train.methods.pairs import PairMethod, PairRule
from strop.train.methods.supervised import SupervisedMethod
from strop.train.methods.table import compares_with_reference, learner_of
from strop.train.methods.unpaired import OtherAnswers, UnpairedMethod, other_answers
from strop.train.run import train
from strop.types import Branch, Completion, Origin, Rollout, Score, ScoredGroup, Task, Tree
from tests.support.experts import CHOSEN, EXPERTS, drawn_along, mixture
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
    """All gradients; 0 where a parameter has none."""
    every = policy.model.parameters()
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in every])


def step(policy: Policy, trees: list[Tree], max_tokens: int) -> tuple[float, torch.Tensor]:
    """The loss of one step, and all gradients."""
    return taken(policy, supervised(policy, trees, max_tokens).update(range(len(trees))))


def supervised(
    policy: Policy, trees: list[Tree], max_tokens: int, world: World = ALONE
) -> BalancedRecords:
    method = SupervisedMethod(policy, trees, max_tokens)
    return BalancedRecords(method, Balance(policy, COEFFICIENT, world))


def taken(policy: Policy, update: Update) -> tuple[float, torch.Tensor]:
    """The loss of an update, and all gradients."""
    values = [loss().value for loss in update.losses(update.counts)]
    policy.model.zero_grad()
    sum(values).backward()  # type: ignore[union-attr]
    return sum(float(value.detach()) for value in values), slopes(policy)


def load_of(policy: Policy, trees: list[Tree]) -> Load:
    with watched(policy.score.causal_lm) as watch:
        policy.score(trees)
    return watch.load(sum(map(len, trees)))


def theirs(model: Any, trees: list[Tree]) -> torch.Tensor:
    """transformers' own loss, from one row an answer; a prompt counts with its first answer."""
    seen = []
    for tree in trees:
        for number, branch in enumerate(tree.branches):
            ids = torch.tensor([[*tree.trunk, *branch.ids]])
            logits = model(input_ids=ids, output_router_logits=True).router_logits
            first = len(tree.trunk) if number else 0
            seen.append([one[first:] for one in logits])
    layers = tuple(torch.cat(parts) for parts in zip(*seen, strict=True))
    expected = modeling_qwen3_moe.load_balancing_loss_func(layers, EXPERTS, CHOSEN)
    assert isinstance(expected, torch.Tensor)
    return expected


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("qwen3_moe", modeling_qwen3_moe.load_balancing_loss_func),
        ("mixtral", modeling_mixtral.load_balancing_loss_func),
    ],
)
def test_one_forward_is_transformers_own_number(name: str, function: Any) -> None:
    """On padded rows, which it leaves out by their mask, and its gradient."""
    policy, trees = policy_of(name), trees_of(branches=1)
    rows = [torch.tensor([*tree.trunk, *tree.branches[0].ids]) for tree in trees]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    ones = [torch.ones_like(row) for row in rows]
    mask = torch.nn.utils.rnn.pad_sequence(ones, batch_first=True)
    read = policy.model(input_ids=ids, attention_mask=mask, output_router_logits=True)
    expected = function(read.router_logits, EXPERTS, CHOSEN, mask)
    expected.backward()
    wanted = slopes(policy)
    policy.model.zero_grad()
    found = part_of(load_of(policy, trees), {})
    found.backward()
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert (slopes(policy) - wanted).norm() <= 1e-5 * wanted.norm()


def test_a_prompt_that_answers_share_counts_once() -> None:
    policy, trees = policy_of(), trees_of(branches=3)
    found, expected = (
        part_of(load_of(policy, trees), {}),
        float(theirs(policy.model, trees).detach()),
    )
    assert float(found.detach()) == pytest.approx(expected, rel=1e-5)


def test_many_forwards_are_one() -> None:
    """Experts are counted over the step; the mean of the forwards' own losses is another number."""
    policy, trees = policy_of(), trees_of(branches=2)
    whole, expected = step(policy, trees, 10**6)
    cut, found = step(policy, trees, TOKENS)
    assert cut == pytest.approx(whole, rel=1e-5)
    assert (found - expected).norm() <= 1e-5 * expected.norm()
    apart = [float(part_of(load_of(policy, [tree]), {})) for tree in trees]
    together = float(part_of(load_of(policy, trees), {}))
    assert abs(sum(apart) / len(apart) - together) > 0.01 * together


def test_two_processes_are_one() -> None:
    policy, trees = policy_of(), trees_of(branches=1)
    whole, expected = step(policy, trees, 10**6)
    method = supervised(policy, trees, 10**6, TwoProcesses())
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
    own = SupervisedMethod(policy, trees, 10**6)
    method = BalancedRecords(own, Balance(policy, 5.0, ALONE))
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
        step(policy, trees, 10**6)


def test_nothing_is_counted_apart_for_a_single_forward() -> None:
    policy, trees = policy_of(), trees_of(branches=1)
    assert ROWS not in supervised(policy, trees, 10**6).update([0]).counts


def group_of(number: int, *rewards: float) -> ScoredGroup:
    """A prompt whose answers are of different lengths."""
    answers = [(5 + number, *[9 + i] * (i + 1), 2) for i in range(len(rewards))]
    said = tuple(Completion.one_turn(ids, "x", (-0.5,) * len(ids), "stop") for ids in answers)
    rollout = Rollout(Task("p", {}, Origin("t", number)), (1, 4 + number), said)
    return ScoredGroup(rollout, tuple(Score(r, {"f": r}) for r in rewards))


def learnt(policy: Policy, method: str, **options: Any) -> Iterator[Update]:
    """The updates of a method that learns from its own samples, as a run of this recipe makes
    them; in `grpo` the second group has no gradient."""
    recipe = METHODS[method].recipe.model_validate({
        "method": method, "output": "o", "data": "d", "reward": [{"function": "exact_answer"}],
        "optim": {"learning_rate": 1e-5}, "run": {"steps": 1, "micro_batch_tokens": TOKENS},
        **options,
    })  # fmt: skip
    state = TrainState(policy, build_optimizer(policy, recipe.optim))
    reference = Reference(policy) if compares_with_reference(recipe) else None  # type: ignore[arg-type]
    learner = learner_of(state, recipe, reference, ALONE)  # type: ignore[arg-type]
    groups = [group_of(0, 1.0, 0.0, 0.5), group_of(1, 1.0, 1.0, 1.0), group_of(2, 0.0, 1.0, 0.3)]
    return learner.updates([groups])


def from_records(policy: Policy, method: str, coefficient: float | None) -> Update:
    trees = trees_of(branches=2 if method == "dpo" else 1)
    ref_B2 = torch.linspace(-30, -20, 20).view(10, 2)
    made: OfflineMethod
    if method == "dpo":
        rule, mean = PairRule("dpo", DpoObjective()), RunningMean(0.0, steps=0)
        made = PairMethod(rule, TOKENS, policy, trees, ref_B2, mean)
    else:
        recipe = METHODS[method].recipe.model_validate({
            "method": method, "output": "o", "model": {"path": "m"}, "data": "d",
            "optim": {"learning_rate": 1e-5}, "run": {"steps": 1, "micro_batch_tokens": TOKENS},
        })  # fmt: skip
        labels = torch.tensor([True, False, True, True, False])
        others = OtherAnswers(other_answers(trees, 3, 64), ref_B2[:5, 1])
        made = UnpairedMethod(recipe, policy, trees, labels, ref_B2[:5, 0], others)  # type: ignore[arg-type]
    if coefficient is not None:
        made = BalancedRecords(made, Balance(policy, coefficient, ALONE))
    return made.update(range(5))


@pytest.mark.parametrize("method", ["dpo", "kto", "grpo", "reinforce_pp", "online_dpo", "raft"])
def test_every_method_has_its_own_loss_and_that_much_of_the_routers(method: str) -> None:
    """In float64: what the coefficient adds to loss and gradient is transformers' own number of
    what the step reads, here in several forwards."""

    def update_of(policy: Policy, coefficient: float | None) -> Update:
        if method in ("dpo", "kto"):
            return from_records(policy, method, coefficient)
        options: dict[str, Any] = {"model": {"path": "m", "router_aux_loss_coef": coefficient}}
        return next(learnt(policy, method, **options))

    policy = policy_of()
    policy.model.double()
    policy.model.set_experts_implementation("eager")  # torch's grouped product takes no float64
    plain, own = taken(policy, update_of(policy, None))
    update = update_of(policy, COEFFICIENT)
    both, found = taken(policy, update)
    trees = [tree for forward in update.forwards for tree in forward]
    policy.model.zero_grad()
    expected = COEFFICIENT * theirs(policy.model, trees)
    expected.backward()
    assert both - plain == pytest.approx(float(expected.detach()), rel=1e-6)
    assert own.norm() > 0
    assert (ROWS in update.counts) == (len(update.forwards) > 1)
    assert (found - own - slopes(policy)).norm() <= 1e-6 * slopes(policy).norm()


def test_the_routers_own_choice_counts_where_another_is_replayed() -> None:
    """What is balanced is what the router would choose; in the first layer it reads the same."""
    policy, trees = policy_of(), trees_of(branches=2)
    chosen = []
    for read in (trees, drawn_along(trees)):
        with watched(policy.score.causal_lm) as watch:
            policy.score(read)
        chosen.append(watch.seen)
    assert torch.equal(chosen[0][0][1], chosen[1][0][1])
    assert not torch.equal(chosen[0][1][0], chosen[1][1][0]), "the replayed experts are others"


def test_a_critic_keeps_its_own_loss() -> None:
    policy = policy_of()
    given = Update({}, lambda counts: [], of="critic")

    class Critics:
        compares_groups = True

        def updates(self, parts: Any) -> Iterator[Update]:
            yield given

    learner = BalancedLearner(Critics(), Balance(policy, COEFFICIENT, ALONE))
    assert [update is given for update in learner.updates([])] == [True]
    assert learner.compares_groups


def test_a_reward_model_does_not_read_it(recipes: dict[str, Path]) -> None:
    recipe = load_recipe(recipes["reward_model"], ["model.router_aux_loss_coef=0.01"])
    with pytest.raises(RecipeError, match="method reward_model does not read it"):
        train(recipe)


@pytest.mark.parametrize("method", ["sft", "dpo", "grpo"])
def test_a_dense_model_refuses_it(method: str, recipes: dict[str, Path]) -> None:
    recipe = load_recipe(recipes[method], ["model.router_aux_loss_coef=0.01"])
    with pytest.raises(UsageError, match="router_aux_loss_coef is set, but Qwen3ForCausalLM"):
        train(recipe)
