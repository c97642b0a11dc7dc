"""Learners that rank a group's samples: online DPO (best against worst) and RAFT (best of n)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch

from strop.distributed.world import ALONE, Counts, World
from strop.errors import TrainingError
from strop.losses.metrics import Sum
from strop.losses.reduce import Loss
from strop.model.network import Policy
from strop.model.reference import Reference
from strop.recipe.train.online import OnlineDpoRecipe, RaftRecipe
from strop.recipe.train.preference import (
    AnyPairObjective,
    IpoObjective,
    PairObjective,
)
from strop.tracking.phases import phase
from strop.train.loop.micro_batches import forward_tokens, passes
from strop.train.loop.state import TrainState
from strop.train.loop.updater import MicroBatchLoss, Update
from strop.train.methods.pairs import PairMethod, PairRule, reference_read
from strop.train.methods.supervised import SupervisedMethod
from strop.types import Completion, ScoredGroup, Tree


def ranked(group: ScoredGroup, *, whole_only: bool) -> list[tuple[float, Completion]]:
    """Scored completions, best first; equal rewards keep the order they were sampled in.

    `whole_only` leaves out completions that were cut at the token limit.
    """
    pairs = [
        (score.total, completion)
        for score, completion in zip(group.scores, group.rollout.completions, strict=True)
        if score.total is not None and not (whole_only and completion.finish == "length")
    ]
    return sorted(pairs, key=lambda pair: -pair[0])


def without_rollout_metrics(update: Update) -> Update:
    """The update without the metrics that the rollout logs itself: the rollout measures them over
    all samples, the update only over those it trains on."""

    def quieter(loss_of: MicroBatchLoss) -> Loss:
        loss = loss_of()
        return Loss(
            loss.value, {n: m for n, m in loss.metrics.items() if n not in LOGGED_BY_ROLLOUT}
        )

    def losses(counts: Counts) -> list[MicroBatchLoss]:
        return [partial(quieter, loss_of) for loss_of in update.losses(counts)]

    return replace(update, losses=losses)


LOGGED_BY_ROLLOUT = frozenset({"num_tokens", "entropy", "learnt/entropy"})
"""Metrics that the rollout logs over all samples."""


class OnlineDpo:
    """Online DPO: the best against the worst answer of each group (Guo et al. 2024, arXiv
    2402.04792, with a reward in place of the annotating model).

    Groups whose scored answers all have the same reward give no pair and are counted.
    """

    compares_groups = True

    def __init__(
        self,
        recipe: OnlineDpoRecipe,
        state: TrainState,
        policy: Policy,
        reference: Reference,
        *,
        world: World = ALONE,
    ) -> None:
        self.recipe, self.state, self.policy, self.reference = recipe, state, policy, reference
        self.max_tokens, self.world = forward_tokens(recipe.run, policy), world

    def updates(self, parts: Sequence[Sequence[ScoredGroup]]) -> Iterator[Update]:
        """One update on the pairs of this step."""
        groups = [group for part in parts for group in part]
        with phase("data"):
            trees = [tree for group in groups for tree in self._pair(group)]
            update = self._method(trees).update(range(len(trees)))
        skipped = {"skipped/groups": Sum(float(len(groups) - len(trees)))}
        yield without_rollout_metrics(replace(update, metrics=skipped))

    def _method(self, trees: Sequence[Tree]) -> PairMethod:
        """The loss over these pairs, against the reference as it stands now."""
        rule = PairRule(self.recipe.objective.loss, self._objective())
        read = reference_read(rule)

        def scored(trees: Sequence[Tree]) -> torch.Tensor:
            return read(self.reference.scores(trees))

        rows = passes(self.policy, trees, self.max_tokens, scored, self.world)
        ref_B2 = torch.cat(rows) if rows else torch.zeros(0, 2)
        return PairMethod(
            rule,
            self.max_tokens,
            self.policy,
            trees,
            ref_B2,
            self.state.reward_mean,
            world=self.world,
        )

    def _objective(self) -> AnyPairObjective:
        beta = self.recipe.objective.beta
        if self.recipe.objective.loss == "ipo":
            return IpoObjective(beta=beta)
        return PairObjective(beta=beta)

    def _pair(self, group: ScoredGroup) -> list[Tree]:
        answers = ranked(group, whole_only=self.recipe.rollout.mask_truncated)
        if len(answers) < 2 or answers[0][0] == answers[-1][0]:
            return []
        written = (*answers[0][1].branches(), *answers[-1][1].branches())
        if len(written) != 2:
            raise TrainingError(
                "an episode has several paths, because the chat template writes earlier turns "
                "otherwise, and a pair compares answers of one path each",
                where=str(group.rollout.task.origin),
                fix="train with a policy gradient or raft, or with a template that leaves earlier "
                "turns alone",
            )
        return [Tree(group.rollout.prompt_ids, written)]


class Raft:
    """Rejection-sampling fine-tuning: maximum likelihood on the best answer of each group (RAFT:
    Dong et al. 2023, arXiv 2304.06767), if it earns at least `min_reward`.

    Of answers with the same reward the first is trained on, so equal groups count as well.
    """

    compares_groups = False

    def __init__(
        self, recipe: RaftRecipe, state: TrainState, policy: Policy, *, world: World = ALONE
    ) -> None:
        self.recipe, self.state, self.policy = recipe, state, policy
        self.max_tokens, self.world = forward_tokens(recipe.run, policy), world

    def updates(self, parts: Sequence[Sequence[ScoredGroup]]) -> Iterator[Update]:
        """One update on the best answers of this step."""
        groups = [group for part in parts for group in part]
        with phase("data"):
            trees = [tree for group in groups for tree in self._best(group)]
        if not self.world.total({"trees": len(trees)})["trees"]:
            warnings.warn(f"nothing was learnt from a step: {self._reason(groups)}", stacklevel=2)
        method = SupervisedMethod(self.policy, trees, self.max_tokens, prefix="learnt/")
        skipped = {"skipped/groups": Sum(float(len(groups) - len(trees)))}
        update = replace(method.update(range(len(trees))), metrics=skipped)
        yield without_rollout_metrics(update)

    def _reason(self, groups: Sequence[ScoredGroup]) -> str:
        """Why none of these groups has an answer to train on."""
        if any(self._ranked(group) for group in groups):
            return "none of its answers earned objective.min_reward"
        return (
            "all its answers were cut at rollout.max_tokens, and rollout.mask_truncated leaves "
            "such answers out"
        )

    def _ranked(self, group: ScoredGroup) -> list[tuple[float, Completion]]:
        return ranked(group, whole_only=self.recipe.rollout.mask_truncated)

    def _best(self, group: ScoredGroup) -> list[Tree]:
        answers = self._ranked(group)
        least = self.recipe.objective.min_reward
        if not answers or (least is not None and answers[0][0] < least):
            return []
        return [Tree(group.rollout.prompt_ids, answers[0][1].branches())]
