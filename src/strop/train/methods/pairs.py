"""Learning from pairs: DPO and its family, with and without a reference.

The loss compares one log-prob per answer: the sum over its tokens, their mean, or a sum in which
tokens beyond the shorter answer's length weigh less. Policy and reference follow the same rule.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from strop.distributed.world import ALONE, Counts, World
from strop.errors import UsageError
from strop.losses import preference
from strop.losses.metrics import Metric, Sum
from strop.losses.reduce import Loss, mean_of
from strop.losses.weights import length_desensitized_weights, wpo_weights
from strop.model.logprobs import Head
from strop.model.network import Policy
from strop.model.transfer import moved
from strop.recipe.train.methods import METHODS, Method
from strop.recipe.train.preference import ALPHA, AnyPairObjective, DpoObjective
from strop.tracking.phases import phase
from strop.train.loop.micro_batches import MicroBatch, micro_batches, passes
from strop.train.loop.state import RunningMean
from strop.train.loop.updater import MicroBatchLoss, Update
from strop.types import TokenScores, Tree

AROUND = frozenset({"nll_weight", "length_normalized", "ld_alpha", "wpo", "losses", "divergence",
                    "alpha"})  # fmt: skip
"""Options that are not arguments of a loss function."""


def answer_logprobs(scores: TokenScores, rule: PairRule) -> torch.Tensor:
    """The log-prob by which the loss compares answers, one per branch, shape [B]."""
    if rule.averages:
        return scores.sums_B() / scores.lengths_B()
    if rule.desensitized is None:
        return scores.sums_B()
    lengths_B = scores.lengths_B()
    first_B = lengths_B.cumsum(0) - lengths_B
    place_N = torch.arange(len(scores.branch_N), device=scores.branch_N.device)
    weight_N = length_desensitized_weights(
        lengths_B, place_N - first_B[scores.branch_N].long(), scores.branch_N,
        alpha=rule.desensitized,
    )  # fmt: skip
    weighted_N = weight_N * scores.logprobs_N
    return weighted_N.new_zeros(scores.branches).index_add(0, scores.branch_N, weighted_N)


def reference_read(rule: PairRule) -> Callable[[TokenScores], torch.Tensor]:
    """Reads the reference's scores: (sum, compared log-prob) of every branch, [B, 2]."""
    return lambda scores: torch.stack([scores.sums_B(), answer_logprobs(scores, rule)], 1)


Sides = tuple[torch.Tensor, ...]
"""Compared log-probs of chosen and rejected answers, of the policy and then of the reference where
there is one, [P] each."""


def pair_losses(
    rule: PairRule, answers_B: torch.Tensor, ref_B: torch.Tensor | None, reward_mean: float
) -> torch.Tensor:
    """The method's loss of each pair, [P], from compared log-probs of alternating branches.

    `reward_mean` is the mean reward so far (BCO reads it).
    """
    sides: Sides = (answers_B[0::2], answers_B[1::2])
    if ref_B is not None:
        sides = (*sides, ref_B[0::2], ref_B[1::2])
    options = {k: v for k, v in rule.objective.model_dump().items() if k not in AROUND}
    return loss_named(rule.method)(sides, rule, options, reward_mean)


Options = Mapping[str, Any]
LossOfSides = Callable[[Sides, "PairRule", Options, float], torch.Tensor]


def loss_named(name: str) -> LossOfSides:
    """The method's entry in `WITH_OPTIONS`, else the function of that name in
    `losses/preference.py`, which gets the options that it has parameters for."""
    if name in WITH_OPTIONS:
        return WITH_OPTIONS[name]
    function = vars(preference)[name]
    return lambda sides, rule, options, reward_mean: function(*sides, **options)


def _dpo(sides: Sides, rule: PairRule, options: Options, reward_mean: float) -> torch.Tensor:
    """DPO, f-DPO where the divergence is another one, or the user's own loss."""
    if isinstance(rule.objective, DpoObjective) and rule.objective.given is not None:
        return _own_loss(rule.objective.given, sides, options)
    divergence = rule.option("divergence", "reverse_kl")
    if divergence == "reverse_kl":
        return preference.dpo(*sides, **options)
    beta, alpha = rule.objective.beta, rule.option("alpha", ALPHA)
    return preference.f_dpo(*sides, beta=beta, divergence=divergence, alpha=alpha)


def _own_loss(
    function: Callable[..., torch.Tensor], sides: Sides, options: Options
) -> torch.Tensor:
    """A user's own loss of each pair, [P]; it gets the options that it has parameters for."""
    taken = inspect.signature(function).parameters
    loss_P = function(*sides, **{name: v for name, v in options.items() if name in taken})
    if not isinstance(loss_P, torch.Tensor) or loss_P.shape != sides[0].shape:
        found = list(loss_P.shape) if isinstance(loss_P, torch.Tensor) else type(loss_P).__name__
        raise UsageError(
            f"the loss {function.__name__} returned {found} where the shape is {[len(sides[0])]}",
            fix="return a tensor with one loss for each pair; strop takes the mean",
        )
    return loss_P


def _bco(sides: Sides, rule: PairRule, options: Options, reward_mean: float) -> torch.Tensor:
    return preference.bco_pair(*sides, **options, delta=reward_mean)


def _mpo(sides: Sides, rule: PairRule, options: Options, reward_mean: float) -> torch.Tensor:
    """The weighted sum of the mixture's losses (MPO)."""
    shared = {"beta": rule.objective.beta}
    total = torch.zeros_like(sides[0])
    for name, weight in rule.option("losses", {}).items():
        loss = loss_named(name)
        total = total + weight * loss(sides, rule, shared, reward_mean)
    return total


WITH_OPTIONS: Mapping[str, LossOfSides] = {"dpo": _dpo, "bco_pair": _bco, "mpo": _mpo}
"""Losses that read more than their own options; all others are `losses/preference.py`'s."""


@dataclass(frozen=True, slots=True)
class PairRule:
    """A loss by name with its options: `PairRule("dpo", DpoObjective(beta=0.1))`."""

    method: str
    objective: AnyPairObjective

    @property
    def row(self) -> Method:
        return METHODS[self.method]

    def option(self, name: str, without: Any) -> Any:
        """An option of the objective, or `without` if this method has no such option."""
        known = name in type(self.objective).model_fields
        return getattr(self.objective, name) if known else without

    @property
    def averages(self) -> bool:
        """Whether the loss compares mean log-probs per token."""
        by_option = self.row.length == "option" and self.option("length_normalized", False)
        return self.row.length == "mean" or by_option

    @property
    def desensitized(self) -> float | None:
        """The weight of tokens beyond the shorter answer's length (LD-DPO); `None` where it is
        1."""
        alpha = self.option("ld_alpha", 1.0) if self.row.length == "option" else 1.0
        return None if alpha == 1 else alpha

    @property
    def reads_reward_mean(self) -> bool:
        return "bco_pair" in (self.method, *self.option("losses", ()))


@dataclass(frozen=True, slots=True)
class StepPairs:
    """The pairs of one step: their number in all processes, this process's reference rows [2P, 2]
    (or None) and the mean reward so far.

    `slope_B` and `value_P` are set for losses over the whole batch that are computed in parts: the
    loss's gradient in every compared log-prob, and every pair's loss.
    """

    pairs: float
    ref_B2: torch.Tensor | None
    reward_mean: float
    slope_B: torch.Tensor | None = None
    value_P: torch.Tensor | None = None


class PairMethod:
    """One method of the family over preference trees (branches alternate chosen, rejected).

    `ref_B2` are the reference's rows as `reference_read` makes them; `reward_mean` is kept up to
    date for the losses that read it.
    """

    def __init__(
        self,
        rule: PairRule,
        max_tokens: int,
        policy: Policy,
        trees: Sequence[Tree],
        ref_B2: torch.Tensor | None,
        reward_mean: RunningMean,
        *,
        world: World = ALONE,
    ) -> None:
        self.rule = rule
        self.max_tokens, self.policy = max_tokens, policy
        self.reward_mean, self.world = reward_mean, world
        self.trees, self.ref_B2 = trees, ref_B2
        self.head = Head(collision=rule.option("wpo", False))

    def update(self, indices: Sequence[int]) -> Update:
        """The step's loss over these pairs, in forwards of at most `max_tokens` tokens."""
        chosen = list(indices)
        ref_B2 = None
        if self.ref_B2 is not None:
            ref_P22 = self.ref_B2.view(len(self.ref_B2) // 2, 2, 2)
            ref_B2 = ref_P22[chosen].flatten(0, 1)
        trees = [self.trees[i] for i in chosen]
        cut = list(micro_batches(trees, self.max_tokens))

        def losses(counts: Counts) -> list[MicroBatchLoss]:
            step = StepPairs(counts["pairs"], ref_B2, self.reward_mean.mean)
            if self.rule.row.whole_batch and (len(cut) > 1 or self.world.data_size > 1):
                step = self._coupled(step, trees)
            return [partial(self._loss, step, batch) for batch in cut]

        return Update({"pairs": len(trees)}, losses, [batch.trees for batch in cut])

    def finish(self, row: dict[str, float], *, learnt: bool) -> dict[str, float]:
        """Update the mean reward of all answers trained on so far: BCO's shift from the next step
        on."""
        if learnt and self.rule.reads_reward_mean:
            self.reward_mean.add((row["rewards/chosen"] + row["rewards/rejected"]) / 2)
        return row

    def _score(self, trees: Sequence[Tree]) -> TokenScores:
        with self.policy.arithmetic():
            return self.policy.score(trees, self.head)

    @torch.no_grad()
    def _coupled(self, step: StepPairs, trees: Sequence[Tree]) -> StepPairs:
        """First pass of a loss over the whole batch: its slope in every answer's log-prob.

        A second forward then only has to multiply its log-probs with these slopes: the exact
        gradient of the whole batch at any micro-batch size, for one more forward.
        """

        def compared(trees: Sequence[Tree]) -> torch.Tensor:
            return answer_logprobs(self._score(trees), self.rule)

        with phase("forward"):
            read = passes(self.policy, trees, self.max_tokens, compared, self.world)
            answers_B = torch.cat([torch.zeros(0, device=self.policy.device), *read])
        compared_B = _compared(step.ref_B2, slice(None), answers_B.device)
        everyone = self.world.gathered(answers_B)
        ref_B = None if compared_B is None else self.world.gathered(compared_B).values_N
        with torch.enable_grad():
            leaf_B = everyone.values_N.requires_grad_()
            value_P = pair_losses(self.rule, leaf_B, ref_B, step.reward_mean)
            (slope_B,) = torch.autograd.grad(value_P.sum(), leaf_B)
        own_P = slice(everyone.own.start // 2, everyone.own.stop // 2)
        return replace(step, slope_B=slope_B[everyone.own], value_P=value_P.detach()[own_P])

    def _loss(self, step: StepPairs, batch: MicroBatch) -> Loss:
        scores = self._score(batch.trees)
        answers_B = answer_logprobs(scores, self.rule)
        if step.slope_B is None or step.value_P is None:
            ref_B = _compared(step.ref_B2, batch.branches, answers_B.device)
            loss_P = pair_losses(self.rule, answers_B, ref_B, step.reward_mean)
        else:
            moved_B = step.slope_B[batch.branches] * (answers_B - answers_B.detach())
            value_P = step.value_P[batch.branches.start // 2 : batch.branches.stop // 2]
            loss_P = value_P + moved_B.view(-1, 2).sum(1)
        if scores.collision_N is not None:
            loss_P = loss_P * wpo_weights(
                scores.logprobs_N, scores.collision_N, scores.branch_N, scores.branches
            )
        mean_B = scores.sums_B() / scores.lengths_B()
        nll_weight = self.rule.option("nll_weight", 0.0)
        if nll_weight:
            loss_P = loss_P - nll_weight * mean_B[0::2]
        metrics = pair_metrics(self.rule.objective.beta, scores, answers_B.detach(), step, batch)
        return Loss(loss_P.sum() / step.pairs, metrics)


def pair_metrics(
    beta: float, scores: TokenScores, answers_B: torch.Tensor, step: StepPairs, batch: MicroBatch
) -> dict[str, Metric]:
    """The metrics that TRL logs, and how far the chosen answer has drifted from the reference."""
    sums_B, lengths_B = scores.sums_B().detach(), scores.lengths_B()
    ref_B = _compared(step.ref_B2, batch.branches, answers_B.device)
    rewards_B = beta * (answers_B if ref_B is None else answers_B - ref_B)
    chosen, rejected = rewards_B[0::2], rewards_B[1::2]
    metrics: dict[str, Metric] = {
        "rewards/chosen": mean_of(chosen),
        "rewards/rejected": mean_of(rejected),
        "rewards/margins": mean_of(chosen - rejected),
        "rewards/accuracies": mean_of((chosen > rejected).float()),
        "logps/chosen": mean_of(sums_B[0::2]),
        "logps/rejected": mean_of(sums_B[1::2]),
        "logps/chosen_per_token": mean_of((sums_B / lengths_B)[0::2]),
        "num_tokens": Sum(len(scores.logprobs_N)),
        "entropy": mean_of(scores.entropy_N),
    }
    if step.ref_B2 is not None:
        plain_B = moved(step.ref_B2[batch.branches, 0], sums_B.device)
        drift = ((sums_B - plain_B) / lengths_B)[0::2]
        metrics["displacement/chosen_per_token"] = mean_of(drift)
        metrics["displacement/chosen_below_reference"] = mean_of((drift < 0).float())
    return metrics


def _compared(
    ref_B2: torch.Tensor | None, branches: slice, device: torch.device
) -> torch.Tensor | None:
    """The reference's compared log-probs of these branches, [B]."""
    return None if ref_B2 is None else moved(ref_B2[branches, 1], device)
