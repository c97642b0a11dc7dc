"""Training on thumbs up and down: KTO and unpaired APO-zero.

KTO's reference point is how much likelier answers to *other* prompts are under the policy than
under the reference. For it every prompt is paired with another record's answer, once for the whole
run, so the reference's part of the estimate is also computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from strop.data.order import permutation
from strop.distributed.world import ALONE, Counts, World
from strop.losses.metrics import Mean, Metric, Sum
from strop.losses.preference import apo_zero_unpaired, kto
from strop.losses.reduce import Loss, mean_of
from strop.model.network import Policy
from strop.recipe.train.offline import UnpairedRecipe
from strop.text.lazy import LazySequence
from strop.tracking.phases import phase
from strop.train.loop.micro_batches import MicroBatch, forward_tokens, micro_batches, passes
from strop.train.loop.updater import MicroBatchLoss, Update
from strop.types import Branch, TokenScores, Tree


def other_answers(trees: Sequence[Tree], seed: int, max_length: int) -> Sequence[Tree]:
    """Every prompt with the answer of another record (Ethayarajh et al. 2024, arXiv 2402.01306,
    section 4.1: the answers shifted among the examples), the same for the whole run.

    An answer that does not fit behind its new prompt is cut to `max_length` tokens of both.
    """
    return _Mismatched(trees, seed, max_length)


class _Mismatched(LazySequence[Tree]):
    def __init__(self, trees: Sequence[Tree], seed: int, max_length: int) -> None:
        self.trees, self.max_length = trees, max_length
        order = permutation(len(trees), seed, 0)
        self.partner = np.empty_like(order)
        self.partner[order] = np.roll(order, 1)

    def __len__(self) -> int:
        return len(self.trees)

    def at(self, index: int) -> Tree:
        trunk = self.trees[index].trunk
        (answer,) = self.trees[self.partner[index]].branches
        room = max(1, self.max_length - len(trunk))
        return Tree(trunk, (Branch(answer.ids[:room], answer.supervised[:room]),))


@dataclass(frozen=True, slots=True)
class OtherAnswers:
    """Every record's prompt with another one's answer, and the reference's sums for them."""

    trees: Sequence[Tree]
    ref_R: torch.Tensor


@dataclass(frozen=True, slots=True)
class Thumbs:
    """The records of one step on this process, KTO's reference point of the whole step (a scalar),
    and how many `records` the step has in all processes."""

    label_R: torch.Tensor
    ref_R: torch.Tensor
    kl: torch.Tensor | None
    records: float


def branch_sums(scores: TokenScores) -> torch.Tensor:
    """Sum of log-probs per branch, [B]."""
    return scores.sums_B()


class UnpairedMethod:
    """KTO or unpaired APO-zero over trees with one branch each.

    `labels_R` says which answers were liked, `ref_R` are the reference's sums; `others` only for
    KTO.
    """

    def __init__(
        self,
        recipe: UnpairedRecipe,
        policy: Policy,
        trees: Sequence[Tree],
        labels_R: torch.Tensor,
        ref_R: torch.Tensor,
        others: OtherAnswers | None = None,
        *,
        world: World = ALONE,
    ) -> None:
        self.recipe, self.policy, self.trees = recipe, policy, trees
        self.labels_R, self.ref_R, self.others = labels_R, ref_R, others
        self.max_tokens, self.world = forward_tokens(recipe.run, policy), world

    def update(self, indices: Sequence[int]) -> Update:
        """The step's loss; the reference point is that of the whole step, without a gradient."""
        chosen = list(indices)
        cut = list(micro_batches([self.trees[i] for i in chosen], self.max_tokens))

        def losses(counts: Counts) -> list[MicroBatchLoss]:
            kl = None if self.others is None else self._reference_point(self.others, chosen)
            step = Thumbs(self.labels_R[chosen], self.ref_R[chosen], kl, counts["records"])
            return [partial(self._loss, batch, step) for batch in cut]

        return Update({"records": len(chosen)}, losses, [batch.trees for batch in cut])

    def finish(self, row: dict[str, float], *, learnt: bool) -> dict[str, float]:
        """The step's metrics with the margin between liked and disliked answers."""
        both = {"rewards/chosen", "rewards/rejected"} <= row.keys()
        margin = row["rewards/chosen"] - row["rewards/rejected"] if both else None
        return row if margin is None else {**row, "rewards/margins": margin}

    @torch.no_grad()
    def _reference_point(self, others: OtherAnswers, chosen: Sequence[int]) -> torch.Tensor:
        """max(0, mean over the step of policy - reference on the other answers): a scalar."""
        trees = [others.trees[i] for i in chosen]

        def summed(trees: Sequence[Tree]) -> torch.Tensor:
            return self.policy.score(trees).sums_B()

        with phase("forward"), self.policy.arithmetic():
            sums = passes(self.policy, trees, self.max_tokens, summed, self.world)
        policy_R = torch.cat([torch.zeros(0, device=self.policy.device), *sums])
        ref_R = others.ref_R[list(chosen)].to(policy_R.device)
        return self.world.gathered(policy_R - ref_R).values_N.mean().clamp(min=0)

    def _loss(self, batch: MicroBatch, step: Thumbs) -> Loss:
        with self.policy.arithmetic():
            scores = self.policy.score(batch.trees)
        sums_B = scores.sums_B()
        label_B = step.label_R[batch.branches].to(sums_B.device)
        ref_B = step.ref_R[batch.branches].to(sums_B.device)
        options, kl = self.recipe.objective.model_dump(), step.kl
        if kl is None:
            loss_B = apo_zero_unpaired(sums_B, ref_B, label_B, **options)
        else:
            loss_B = kto(sums_B, ref_B, label_B, kl, **options)
        metrics = self._metrics(scores, label_B, ref_B)
        if kl is not None:
            metrics["kl"] = Mean.of(kl.double())
        return Loss(loss_B.sum() / step.records, metrics)

    def _metrics(
        self, scores: TokenScores, label_B: torch.Tensor, ref_B: torch.Tensor
    ) -> dict[str, Metric]:
        sums_B = scores.sums_B().detach()
        rewards_B = self.recipe.objective.beta * (sums_B - ref_B)
        drift_B = (sums_B - ref_B) / scores.lengths_B()
        return {
            "rewards/chosen": mean_of(rewards_B[label_B]),
            "rewards/rejected": mean_of(rewards_B[~label_B]),
            "logps/chosen": mean_of(sums_B[label_B]),
            "logps/rejected": mean_of(sums_B[~label_B]),
            "displacement/chosen_per_token": mean_of(drift_B[label_B]),
            "num_tokens": Sum(len(scores.logprobs_N)),
            "entropy": mean_of(scores.entropy_N),
        }
