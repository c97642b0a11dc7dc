"""What a step is made of: micro-batches, policy batches, updates, mixtures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from strop.advantages import to_go
from strop.data.order import DataMixture, Part, batch_indices
from strop.errors import TrainingError, UsageError
from strop.losses.divergence import k1
from strop.losses.reduce import Loss
from strop.model.network import Policy
from strop.model.reference import Reference
from strop.recipe.train.methods import METHODS
from strop.train.loop.micro_batches import micro_batches, split_tree
from strop.train.loop.optim import Optimizers
from strop.train.loop.state import TrainState
from strop.train.loop.updater import Update, Updater
from strop.train.methods.policy_gradient import PolicyBatch, PolicyGradient
from strop.train.methods.supervised import SupervisedMethod
from strop.types import (
    Branch,
    Completion,
    Origin,
    Rollout,
    Score,
    ScoredGroup,
    Task,
    Tree,
    VersionSpan,
)
from tests.support.steps import learn, losses_of


def grown(count: int = 32) -> list[Tree]:
    """Trees of two branches with random ids."""
    draw = torch.Generator().manual_seed(0)

    def ids(low: int, high: int) -> tuple[int, ...]:
        n = int(torch.randint(low, high, (1,), generator=draw))
        return tuple(torch.randint(4, 250, (n,), generator=draw).tolist())

    trees = []
    for _ in range(count):
        branches = (ids(1, 20), ids(1, 20))
        trees.append(Tree(ids(1, 9), tuple(Branch(b, (True,) * len(b)) for b in branches)))
    return trees


def state_of(policy: Policy, rate: float = 1.0) -> TrainState:
    optimizer = Optimizers([torch.optim.SGD(policy.trainable(), lr=rate)])
    return TrainState(policy, optimizer)


class TestForwards:
    def test_micro_batches_hold_every_branch_once(self) -> None:
        trees = grown()
        cut = list(micro_batches(trees, 60))
        assert [t for batch in cut for t in batch.trees] == trees
        assert [i for p in cut for i in range(p.branches.start, p.branches.stop)] == list(range(64))
        assert all(sum(map(len, p.trees)) <= 60 or len(p.trees) == 1 for p in cut)

    def test_a_large_tree_splits_into_the_same_branches(self) -> None:
        tree = Tree((1, 2), tuple(Branch((i,) * 5, (True,) * 5) for i in range(7)))
        parts = split_tree(tree, [1] * 7, 14)
        assert [b for part, _ in parts for b in part.branches] == list(tree.branches)
        assert all(len(part) <= 14 and part.trunk == tree.trunk for part, _ in parts)
        assert sum(count for _, count in parts) == 7

    def test_the_paths_of_one_answer_stay_together(self) -> None:
        tree = Tree((1, 2), tuple(Branch((i,) * 5, (True,) * 5) for i in range(7)))
        parts = split_tree(tree, [1, 3, 1, 2], 14)
        held = [([branch.ids[0] for branch in part.branches], count) for part, count in parts]
        assert held == [([0], 1), ([1, 2, 3], 1), ([4], 1), ([5, 6], 1)]

    def test_a_loss_that_is_not_finite_changes_nothing(self, policy: Policy) -> None:
        state = state_of(policy)
        before = [p.detach().clone() for p in policy.trainable()]
        (loss_of,) = losses_of(SupervisedMethod(policy, grown(), 10**9), range(4))

        def broken() -> Loss:
            loss = loss_of()
            return Loss(loss.value * float("nan"), loss.metrics)

        update = Update({}, lambda counts: [broken])
        with pytest.raises(TrainingError, match="step 1: not finite: loss of forward 1 of 1: nan"):
            Updater(state, 1.0).step(update, learning_rate=1.0, where="step 1")
        assert all(torch.equal(p, q) for p, q in zip(before, policy.trainable(), strict=True))


class TestMixtures:
    def test_shares_are_those_of_the_weights_in_every_step(self) -> None:
        parts = [Part(False, 0, 50, 0.6), Part(False, 50, 30, 0.15), Part(True, 0, 20, 0.25)]
        mixture = DataMixture(parts, 20, seed=1)
        for step in range(7):
            drawn = mixture.draw(step)
            assert sum(i < 50 for i in drawn.own) == 12
            assert sum(50 <= i < 80 for i in drawn.own) == 3
            assert len(drawn.replay) == 5
            assert all(i < 20 for i in drawn.replay)
        assert mixture.own == 15
        assert mixture.epoch_steps() == pytest.approx(80 / 15)

    def test_every_source_is_walked_through_without_repeats(self) -> None:
        mixture = DataMixture([Part(False, 0, 40, 0.5), Part(True, 0, 12, 0.5)], 8, seed=3)
        replayed = [i for step in range(3) for i in mixture.draw(step).replay]
        assert sorted(replayed) == list(range(12))
        own = [i for step in range(10) for i in mixture.draw(step).own]
        assert sorted(own) == list(range(40))

    def test_sources_of_one_seed_are_shuffled_apart(self) -> None:
        assert batch_indices(50, 10, 0, 0, stream=1) != batch_indices(50, 10, 0, 0, stream=2)

    def test_one_source_without_weight_keeps_the_plain_order(self) -> None:
        mixture = DataMixture([Part(False, 0, 50, 1.0)], 8, seed=5)
        assert list(mixture.draw(4).own) == batch_indices(50, 8, 5, 4)

    def test_a_share_below_one_record_is_refused(self) -> None:
        with pytest.raises(UsageError, match=r"no room for a source of weight 0\.01"):
            DataMixture([Part(False, 0, 50, 0.99), Part(True, 0, 5, 0.01)], 8, seed=0)


def group(*rewards: float | None, cut: int | None = None, first: int = 5) -> ScoredGroup:
    """One prompt whose answers have three tokens each."""
    answers = tuple(
        Completion.one_turn((first + i, 6, 2), "x", (-0.5,) * 3, "length" if i == cut else "stop")
        for i in range(len(rewards))
    )
    rollout = Rollout(Task("p", {}, Origin("t", 1)), (1, 4), answers)
    return ScoredGroup(rollout, tuple(Score(r, {"f": r}) for r in rewards))


def learner(policy: Policy, method: str = "grpo", **options: Any) -> PolicyGradient:
    recipe = METHODS[method].recipe.model_validate({
        "method": method, "output": "o", "model": {"path": "m"}, "data": "d",
        "optim": {"learning_rate": 1e-5, "max_grad_norm": 1e9}, "run": {"steps": 1},
        "reward": [{"function": "exact_answer"}], **options,
    })  # fmt: skip
    state = state_of(policy)
    reference = Reference(policy) if options.get("objective", {}).get("beta") else None
    return PolicyGradient(recipe, state, policy, reference)  # type: ignore[arg-type]


class TestPolicyBatches:
    """What a policy gradient learns from a step's groups."""

    def batch(self, policy: Policy, groups: Sequence[ScoredGroup], **rollout: Any) -> PolicyBatch:
        return learner(policy, rollout=rollout).prepare(groups)

    def test_equal_groups_are_skipped_and_still_counted(self, policy: Policy) -> None:
        gradient = learner(policy)
        batch = gradient.prepare([group(1, 0), group(1, 1), group(0, 0)])
        assert len(batch.trees) == 1
        (mini,) = gradient.mini_batches_of(batch, [3])
        assert mini.counts == {"sequences": 6, "tokens": 18}
        assert batch.metrics["skipped/groups"].result() == 2

    def test_unscored_completions_are_left_out_of_their_group(self, policy: Policy) -> None:
        batch = self.batch(policy, [group(1, None, 0)])
        assert [b.ids[0] for b in batch.trees[0].branches] == [5, 7]
        expected = 0.5 / (math.sqrt(0.5) + 1e-4)
        assert [float(a[0]) for a in batch.advantage] == pytest.approx([expected, -expected])

    def test_truncated_completions_can_be_masked(self, policy: Policy) -> None:
        groups = [group(1, 0, 0, cut=2)]
        assert len(self.batch(policy, groups).trees[0].branches) == 3
        masked = self.batch(policy, groups, mask_truncated=True)
        assert len(masked.trees[0].branches) == 2
        assert masked.counted == ((3, 3),)

    def test_what_a_tool_said_is_read_and_not_counted(self, policy: Policy) -> None:
        """Of an answer of five tokens, two of them a tool's, three are learnt and counted."""
        scored = group(1, 0)
        with_a_tool = Completion(
            "x", "stop", ids=(5, 6, 7, 8, 2), sampled=(True, False, False, True, True),
            logprobs=(-0.1, -0.2, -0.3), versions=(VersionSpan(0, 1, 0), VersionSpan(3, 5, 0)),
        )  # fmt: skip
        answers = (with_a_tool, scored.rollout.completions[1])
        told = replace(scored, rollout=replace(scored.rollout, completions=answers))
        batch = self.batch(policy, [told], mismatch={"level": "token"})
        assert batch.counted == ((3, 3),)
        assert batch.sampler[0].tolist() == pytest.approx([-0.1, -0.2, -0.3])
        assert [len(part) for part in batch.advantage] == [3, 3]
        assert batch.old is not None
        assert [len(part) for part in batch.old] == [3, 3]
        assert batch.trees[0].branches[0] == with_a_tool.branches()[0]

    def test_a_step_without_a_gradient_changes_nothing(self, policy: Policy) -> None:
        before = [p.detach().clone() for p in policy.trainable()]
        gradient = learner(policy)
        assert learn(gradient, gradient.state, [group(1, 1)], 1.0)["grad_norm"] == 0
        assert all(torch.equal(p, q) for p, q in zip(before, policy.trainable(), strict=True))

    def test_kl_in_the_reward_by_hand(self, policy: Policy) -> None:
        """RLOO: the answer's reward less beta times its summed k1, then leave-one-out."""
        gradient = learner(policy, "rloo", objective={"beta": 0.5})
        with torch.no_grad():  # so that the policy is not its own reference
            for parameter in policy.trainable():
                parameter.mul_(1.05)
        batch = gradient.prepare([group(1.0, 0.0)])
        scores = policy.score(batch.trees).logprobs_N.detach()
        assert gradient.reference is not None
        ref = gradient.reference.scores(batch.trees).logprobs_N
        kl = k1(scores, ref).view(2, 3).sum(1)
        shaped = torch.tensor([1.0, 0.0]) - 0.5 * kl
        expected = [float(shaped[0] - shaped[1]), float(shaped[1] - shaped[0])]
        assert abs(float(kl[0] - kl[1])) > 0.01
        assert [float(a[0]) for a in batch.advantage] == pytest.approx(expected, abs=1e-5)
        assert [float(a[2]) for a in batch.advantage] == pytest.approx(expected, abs=1e-5)

    def test_reinforce_pp_by_hand(self, policy: Policy) -> None:
        """Reward at the end, token KL on the way, reward-to-go, normalised over the batch."""
        gradient = learner(policy, "reinforce_pp", objective={"beta": 0.5})
        with torch.no_grad():
            for parameter in policy.trainable():
                parameter.mul_(1.05)
        batch = gradient.prepare([group(1.0, 0.0), group(0.5, 0.5, first=9)])
        assert len(batch.trees) == 2  # equal rewards carry a gradient here
        scores = policy.score(batch.trees).logprobs_N.detach()
        assert gradient.reference is not None
        rewards = -0.5 * k1(scores, gradient.reference.scores(batch.trees).logprobs_N)
        rewards[2::3] += torch.tensor([1.0, 0.0, 0.5, 0.5])
        returns = to_go(rewards, [3] * 4)
        expected = (returns - returns.mean()) / (returns.std() + 1e-4)
        assert torch.allclose(torch.cat(batch.advantage), expected, atol=1e-5)

    def test_mismatch_weights_reach_the_loss(self, policy: Policy) -> None:
        """The sampler said -0.5 for every token; the trainer knows better."""
        wanted = {"level": "token", "bound": "mask", "cap": 1.5, "floor": 0.5}
        gradient = learner(policy, rollout={"mismatch": wanted})
        batch = gradient.prepare([group(1, 0)])
        trainer = policy.score(batch.trees).logprobs_N.detach()
        ratio = (trainer + 0.5).exp()
        expected = torch.where((ratio > 1.5) | (ratio < 0.5), 0.0, ratio)
        assert batch.weight is not None
        assert torch.allclose(torch.cat(batch.weight), expected, atol=1e-5)
        assert batch.metrics["mismatch/masked"].result() == pytest.approx(
            float((expected == 0).float().mean())
        )
        ess = float(ratio.sum() ** 2 / (6 * ratio.square().sum()))
        assert batch.metrics["mismatch/ess"].result() == pytest.approx(ess, rel=1e-4)
        strict = learner(policy, rollout={"mismatch": {**wanted, "min_ess": ess + 0.01}})
        with pytest.raises(TrainingError, match="effective sample size"):
            strict.prepare([group(1, 0)])

    def test_iterations_and_mini_batches(self, policy: Policy) -> None:
        """Two passes in three updates each; the ratio is taken to the weights before the first."""
        gradient = learner(policy, objective={"num_iterations": 2, "mini_batches": 3})
        groups = [group(1, 0, first=5 + i) for i in range(6)]
        batch = gradient.prepare(groups)
        first, second, third = gradient.mini_batches_of(batch, [2, 2, 2])
        assert [sum(len(p.trees) for p in c.work) for c in (first, second, third)] == [2, 2, 2]
        assert [c.counts["sequences"] for c in (first, second, third)] == [4, 4, 4]
        assert third.work[0].branches == slice(8, 12)
        old = policy.score(batch.trees).logprobs_N.detach()
        assert batch.old is not None
        assert torch.allclose(torch.cat(batch.old), old, atol=1e-6)
        steps: list[float] = []
        gradient.state.optimizer.step = steps.append  # type: ignore[method-assign,assignment]
        learn(gradient, gradient.state, groups, 0.25, mini_batches=3)
        assert steps == [0.25] * 6

    def test_skipping_equals_computing_with_advantage_zero(self, policy: Policy) -> None:
        """The same gradient, whether an equal group is forwarded or not."""
        seen = []
        for objective in ({}, {"entropy_weight": 1e-12}):  # a bonus keeps every group in
            gradient = learner(policy, objective=objective)
            gradient.state.optimizer.step = lambda rate: None  # type: ignore[method-assign]
            gradient.state.optimizer.zero_grad = lambda: None  # type: ignore[method-assign]
            policy.model.zero_grad()
            learn(gradient, gradient.state, [group(1, 0), group(1, 1, first=9)], 1.0)
            seen.append(torch.cat([p.grad.flatten().clone() for p in policy.trainable()]))
        assert (seen[0] - seen[1]).norm() <= 1e-5 * seen[0].norm()
