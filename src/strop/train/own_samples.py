"""Two other last steps of the online loop: pairs from own samples, and the best of n."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from strop.losses.reduce import Loss, mean_of
from strop.metrics.value import Mean, Metric, Sum
from strop.model.network import Policy
from strop.model.reference import Reference
from strop.recipe.online import BestOfRecipe, OwnPairsRecipe
from strop.train.pairs import WITH_REFERENCE
from strop.train.step import Piece, Share, TrainState, optimizer_step, pieces
from strop.train.supervised import SupervisedMethod
from strop.types import Branch, Completion, ScoredGroup, Tree


def ranked(group: ScoredGroup, *, whole_only: bool) -> list[tuple[float, Completion]]:
    """Scored completions, best first; equal rewards keep the order they were sampled in.

    `whole_only` leaves out those that were cut at the token limit.
    """
    pairs = [
        (score.total, completion)
        for score, completion in zip(group.scores, group.rollout.completions, strict=True)
        if score.total is not None and not (whole_only and completion.finish_reason == "length")
    ]
    return sorted(pairs, key=lambda pair: -pair[0])


def _branch(completion: Completion) -> Branch:
    return Branch(completion.ids, (True,) * len(completion.ids))


class OwnPairs:
    """Online DPO: the best against the worst answer of each group (Guo et al. 2024, arXiv
    2402.04792, with a reward in place of the annotating model).

    Groups whose scored answers are all worth the same give no pair and are counted.
    """

    def __init__(
        self, recipe: OwnPairsRecipe, state: TrainState, policy: Policy, reference: Reference
    ) -> None:
        self.recipe, self.state, self.policy, self.reference = recipe, state, policy, reference

    def learn(
        self, groups: Sequence[ScoredGroup], replay: Sequence[Share], learning_rate: float
    ) -> dict[str, Metric]:
        """One update on the pairs of this step."""
        trees = [tree for group in groups for tree in self._pair(group)]
        shares = [
            partial(self._share, piece, len(trees))
            for piece in pieces(trees, self.recipe.run.micro_batch_tokens)
        ]
        metrics = optimizer_step(
            self.policy,
            self.state.optimizer,
            [*shares, *replay],
            learning_rate=learning_rate,
            max_grad_norm=self.recipe.optim.max_grad_norm,
            where=f"step {self.state.step + 1}",
        )
        return {**metrics, "skipped/groups": Mean.of(len(groups) - len(trees))}

    def _pair(self, group: ScoredGroup) -> list[Tree]:
        answers = ranked(group, whole_only=self.recipe.rollout.mask_truncated)
        if len(answers) < 2 or answers[0][0] == answers[-1][0]:
            return []
        branches = (_branch(answers[0][1]), _branch(answers[-1][1]))
        return [Tree(group.rollout.prompt_ids, branches)]

    def _share(self, piece: Piece, pairs: int) -> Loss:
        objective = self.recipe.objective
        ref_N = self.reference.logprobs(piece.trees)
        with self.policy.arithmetic():
            scores = self.policy.score(piece.trees)
        sums_B, lengths_B = scores.sums_B(), scores.lengths_B()
        ref_B = torch.zeros_like(lengths_B).index_add(0, scores.branch_N, ref_N)
        scale_B = lengths_B if objective.loss == "ipo" else torch.ones_like(lengths_B)
        mine_B, theirs_B = sums_B / scale_B, ref_B / scale_B
        four = (mine_B[0::2], mine_B[1::2], theirs_B[0::2], theirs_B[1::2])
        loss_P = WITH_REFERENCE[objective.loss](*four, beta=objective.beta)
        rewards_B = objective.beta * (mine_B - theirs_B).detach()
        drift = ((sums_B - ref_B) / lengths_B)[0::2].detach()
        gap = rewards_B[0::2] - rewards_B[1::2]
        metrics: dict[str, Metric] = {
            "rewards/chosen": mean_of(rewards_B[0::2]),
            "rewards/rejected": mean_of(rewards_B[1::2]),
            "rewards/margins": mean_of(gap),
            "rewards/accuracies": mean_of((gap > 0).float()),
            "displacement/chosen_per_token": mean_of(drift),
            "entropy": mean_of(scores.entropy_N),
            "learnt/tokens": Sum(len(scores.logprobs_N)),
        }
        return Loss(loss_P.sum() / pairs, metrics)


class BestOf:
    """Rejection-sampling fine-tuning: maximum likelihood on the best answer of each group (RAFT:
    Dong et al. 2023, arXiv 2304.06767), if it earns at least `min_reward`."""

    def __init__(self, recipe: BestOfRecipe, state: TrainState, policy: Policy) -> None:
        self.recipe, self.state, self.policy = recipe, state, policy

    def learn(
        self, groups: Sequence[ScoredGroup], replay: Sequence[Share], learning_rate: float
    ) -> dict[str, Metric]:
        """One update on the best answers of this step."""
        trees = [tree for group in groups for tree in self._best(group)]
        method = SupervisedMethod(
            self.policy, trees, self.recipe.run.micro_batch_tokens, prefix="learnt/"
        )
        metrics = optimizer_step(
            self.policy,
            self.state.optimizer,
            [*method.shares(range(len(trees))), *replay],
            learning_rate=learning_rate,
            max_grad_norm=self.recipe.optim.max_grad_norm,
            where=f"step {self.state.step + 1}",
        )
        if "learnt/entropy" in metrics:
            metrics["entropy"] = metrics.pop("learnt/entropy")
        return {**metrics, "skipped/groups": Mean.of(len(groups) - len(trees))}

    def _best(self, group: ScoredGroup) -> list[Tree]:
        answers = ranked(group, whole_only=self.recipe.rollout.mask_truncated)
        least = self.recipe.objective.min_reward
        if not answers or (least is not None and answers[0][0] < least):
            return []
        return [Tree(group.rollout.prompt_ids, (_branch(answers[0][1]),))]
