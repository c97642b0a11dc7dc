"""Two other last steps of the online loop: pairs from own samples, and the best of n."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch

from strop.losses.metrics import Mean, Metric
from strop.model.network import Policy
from strop.model.reference import Reference
from strop.recipe.train.online import BestOfRecipe, OwnPairsRecipe
from strop.recipe.train.preference import (
    AnyPairObjective,
    IpoObjective,
    PairObjective,
)
from strop.tracking.phases import phase
from strop.train.loop.step import Share, TrainState, optimizer_step, pieces
from strop.train.methods.pairs import PairMethod, PairRule, reference_read
from strop.train.methods.supervised import SupervisedMethod
from strop.types import Completion, ScoredGroup, Tree


def ranked(group: ScoredGroup, *, whole_only: bool) -> list[tuple[float, Completion]]:
    """Scored completions, best first; equal rewards keep the order they were sampled in.

    `whole_only` leaves out those that were cut at the token limit.
    """
    pairs = [
        (score.total, completion)
        for score, completion in zip(group.scores, group.rollout.completions, strict=True)
        if score.total is not None and not (whole_only and completion.finish == "length")
    ]
    return sorted(pairs, key=lambda pair: -pair[0])


class OwnPairs:
    """Online DPO: the best against the worst answer of each group (Guo et al. 2024, arXiv
    2402.04792, with a reward in place of the annotating model).

    Groups whose scored answers are all worth the same give no pair and are counted.
    """

    compares_groups = True

    def __init__(
        self, recipe: OwnPairsRecipe, state: TrainState, policy: Policy, reference: Reference
    ) -> None:
        self.recipe, self.state, self.policy, self.reference = recipe, state, policy, reference

    def learn(
        self, groups: Sequence[ScoredGroup], replay: Sequence[Share], learning_rate: float
    ) -> dict[str, Metric]:
        """One update on the pairs of this step."""
        with phase("data"):
            trees = [tree for group in groups for tree in self._pair(group)]
            shares = self._method(trees).shares(range(len(trees))) if trees else []
        metrics = optimizer_step(
            self.policy,
            self.state.optimizer,
            [*shares, *replay],
            learning_rate=learning_rate,
            max_grad_norm=self.recipe.optim.max_grad_norm,
            where=f"step {self.state.step + 1}",
        )
        own = {name: m for name, m in metrics.items() if name not in ("num_tokens", "entropy")}
        return {**own, "skipped/groups": Mean.of(len(groups) - len(trees))}

    def _method(self, trees: Sequence[Tree]) -> PairMethod:
        """The loss over these pairs, against the reference as it stands now."""
        max_tokens = self.recipe.run.micro_batch_tokens
        rule = PairRule(self.recipe.objective.loss, self._objective())
        read = reference_read(rule.objective)
        ref_B2 = torch.cat(
            [read(self.reference.scores(piece.trees)) for piece in pieces(trees, max_tokens)]
        )
        return PairMethod(rule, max_tokens, self.policy, trees, ref_B2, self.state.running)

    def _objective(self) -> AnyPairObjective:
        beta = self.recipe.objective.beta
        if self.recipe.objective.loss == "ipo":
            return IpoObjective(beta=beta)
        return PairObjective(beta=beta)

    def _pair(self, group: ScoredGroup) -> list[Tree]:
        answers = ranked(group, whole_only=self.recipe.rollout.mask_truncated)
        if len(answers) < 2 or answers[0][0] == answers[-1][0]:
            return []
        branches = (answers[0][1].branch(), answers[-1][1].branch())
        return [Tree(group.rollout.prompt_ids, branches)]


class BestOf:
    """Rejection-sampling fine-tuning: maximum likelihood on the best answer of each group (RAFT:
    Dong et al. 2023, arXiv 2304.06767), if it earns at least `min_reward`."""

    compares_groups = True

    def __init__(self, recipe: BestOfRecipe, state: TrainState, policy: Policy) -> None:
        self.recipe, self.state, self.policy = recipe, state, policy

    def learn(
        self, groups: Sequence[ScoredGroup], replay: Sequence[Share], learning_rate: float
    ) -> dict[str, Metric]:
        """One update on the best answers of this step."""
        with phase("data"):
            trees = [tree for group in groups for tree in self._best(group)]
            method = SupervisedMethod(
                self.policy, trees, self.recipe.run.micro_batch_tokens, prefix="learnt/"
            )
            shares = method.shares(range(len(trees)))
        metrics = optimizer_step(
            self.policy,
            self.state.optimizer,
            [*shares, *replay],
            learning_rate=learning_rate,
            max_grad_norm=self.recipe.optim.max_grad_norm,
            where=f"step {self.state.step + 1}",
        )
        metrics.pop("learnt/entropy", None)  # that of all samples is logged
        if not trees:
            warnings.warn(
                "no answer of a step earned objective.min_reward, so nothing was learnt from it",
                stacklevel=2,
            )
        return {**metrics, "skipped/groups": Mean.of(len(groups) - len(trees))}

    def _best(self, group: ScoredGroup) -> list[Tree]:
        answers = ranked(group, whole_only=self.recipe.rollout.mask_truncated)
        least = self.recipe.objective.min_reward
        if not answers or (least is not None and answers[0][0] < least):
            return []
        return [Tree(group.rollout.prompt_ids, (answers[0][1].branch(),))]
