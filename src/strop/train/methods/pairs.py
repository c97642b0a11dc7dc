"""Learning from pairs: DPO and its family, with and without a reference.

An answer has one log-prob that the loss compares: the sum over its tokens, their mean, or a sum
that counts tokens beyond the shorter answer less. The same rule is applied to policy and reference.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from strop.errors import UsageError
from strop.losses import preference
from strop.losses.metrics import Metric, Sum
from strop.losses.reduce import Loss, mean_of
from strop.losses.weights import length_desensitized_weights, wpo_weights
from strop.model.logprobs import Head
from strop.model.network import Policy
from strop.recipe.train.preference import (
    AnyPairObjective,
    CpoObjective,
    DpoObjective,
    IpoObjective,
    MpoObjective,
    OrpoObjective,
    PairObjective,
    SimpoObjective,
)
from strop.tracking.phases import phase
from strop.train.loop.step import Piece, Share, pieces
from strop.types import TokenScores, Tree

WITH_REFERENCE: dict[str, Callable[..., torch.Tensor]] = {
    "dpo": preference.dpo,
    "robust_dpo": preference.robust_dpo,
    "ipo": preference.ipo,
    "hinge": preference.hinge,
    "exo_pair": preference.exo_pair,
    "nca_pair": preference.nca_pair,
    "bco_pair": preference.bco_pair,
    "sppo_hard": preference.sppo_hard,
    "aot": preference.aot,
    "aot_unpaired": preference.aot_unpaired,
    "apo_zero": preference.apo_zero,
    "apo_down": preference.apo_down,
    "discopop": preference.discopop,
    "dpop": preference.dpop,
}
"""Losses of (policy chosen, policy rejected, reference chosen, reference rejected)."""

WHOLE_BATCH = frozenset({"aot", "aot_unpaired"})
"""Losses whose pairs depend on each other: they need the whole step at once."""

AROUND = frozenset({"nll_weight", "length_normalized", "ld_alpha", "wpo", "losses", "divergence",
                    "alpha"})  # fmt: skip
"""Options that are not arguments of a loss function."""


def needs_reference(objective: AnyPairObjective) -> bool:
    """Whether a method compares with the model that the run starts from."""
    return not isinstance(objective, SimpoObjective | OrpoObjective | CpoObjective)


def answer_logprobs(scores: TokenScores, objective: AnyPairObjective) -> torch.Tensor:
    """The log-prob by which the objective compares answers, one per branch, shape [B]."""
    if isinstance(objective, SimpoObjective | OrpoObjective | IpoObjective):
        return scores.sums_B() / scores.lengths_B()
    if isinstance(objective, CpoObjective):
        return scores.sums_B()
    if objective.length_normalized:
        return scores.sums_B() / scores.lengths_B()
    if objective.ld_alpha == 1:
        return scores.sums_B()
    lengths_B = scores.lengths_B()
    first_B = lengths_B.cumsum(0) - lengths_B
    place_N = torch.arange(len(scores.branch_N), device=scores.branch_N.device)
    weight_N = length_desensitized_weights(
        lengths_B, place_N - first_B[scores.branch_N].long(), scores.branch_N,
        alpha=objective.ld_alpha,
    )  # fmt: skip
    weighted_N = weight_N * scores.logprobs_N
    return weighted_N.new_zeros(scores.branches).index_add(0, scores.branch_N, weighted_N)


def reference_read(
    objective: AnyPairObjective,
) -> Callable[[TokenScores], torch.Tensor]:
    """What is kept of the reference: (sum, compared log-prob) of every branch, [B, 2]."""
    return lambda scores: torch.stack([scores.sums_B(), answer_logprobs(scores, objective)], 1)


def pair_losses(
    method: str,
    objective: AnyPairObjective,
    answers_B: torch.Tensor,
    ref_B: torch.Tensor | None,
    delta: float,
) -> torch.Tensor:
    """The method's loss of each pair, [P], from compared log-probs of alternating branches.

    `delta` is the running mean of rewards (BCO).
    """
    options = {k: v for k, v in objective.model_dump().items() if k not in AROUND}
    chosen, rejected = answers_B[0::2], answers_B[1::2]
    if isinstance(objective, SimpoObjective):
        return preference.simpo(chosen, rejected, **options)
    if isinstance(objective, OrpoObjective):
        return preference.orpo(chosen, rejected, **options)
    if isinstance(objective, CpoObjective):
        return preference.cpo(chosen, rejected, **options)
    assert ref_B is not None
    four = (chosen, rejected, ref_B[0::2], ref_B[1::2])
    if isinstance(objective, MpoObjective):
        return sum(
            (
                weight * _one(name, four, {"beta": objective.beta}, delta)
                for name, weight in objective.losses.items()
            ),
            torch.zeros_like(chosen),
        )
    if isinstance(objective, DpoObjective) and objective.given is not None:
        return _own_loss(objective.given, four, options)
    if isinstance(objective, DpoObjective) and objective.divergence != "reverse_kl":
        return preference.f_dpo(
            *four, beta=objective.beta, divergence=objective.divergence, alpha=objective.alpha
        )
    return _one(method, four, options, delta)


def _one(
    name: str, four: tuple[torch.Tensor, ...], options: Mapping[str, float], delta: float
) -> torch.Tensor:
    shift = {"delta": delta} if name == "bco_pair" else {}
    return WITH_REFERENCE[name](*four, **options, **shift)


def _own_loss(
    function: Callable[..., torch.Tensor],
    four: tuple[torch.Tensor, ...],
    options: Mapping[str, float],
) -> torch.Tensor:
    """A user's own loss of each pair, [P]; it gets those options that it has parameters for."""
    taken = inspect.signature(function).parameters
    loss_P = function(*four, **{name: v for name, v in options.items() if name in taken})
    if not isinstance(loss_P, torch.Tensor) or loss_P.shape != four[0].shape:
        found = list(loss_P.shape) if isinstance(loss_P, torch.Tensor) else type(loss_P).__name__
        raise UsageError(
            f"the loss {function.__name__} returned {found} where the shape is {[len(four[0])]}",
            fix="return a tensor with one loss for each pair; strop takes the mean",
        )
    return loss_P


@dataclass(frozen=True, slots=True)
class PairRule:
    """A loss by name with its options: `PairRule("dpo", DpoObjective(beta=0.1))`."""

    method: str
    objective: AnyPairObjective


@dataclass(frozen=True, slots=True)
class StepPairs:
    """The pairs of one step: trees, their reference rows [2P, 2] (or None) and the running mean.

    `slope_B` and `value_B` are set for losses over the whole batch that are computed in pieces: the
    loss's gradient in every compared log-prob, and every pair's loss.
    """

    trees: Sequence[Tree]
    ref_B2: torch.Tensor | None
    delta: float
    slope_B: torch.Tensor | None = None
    value_P: torch.Tensor | None = None


class PairMethod:
    """One method of the family over preference trees (branches alternate chosen, rejected).

    `ref_B2` are the reference's rows as `reference_read` makes them, `running` the statistics of
    the run.
    """

    def __init__(
        self,
        rule: PairRule,
        max_tokens: int,
        policy: Policy,
        trees: Sequence[Tree],
        ref_B2: torch.Tensor | None,
        running: dict[str, float],
    ) -> None:
        self.method, self.objective = rule.method, rule.objective
        self.max_tokens, self.policy, self.running = max_tokens, policy, running
        self.trees, self.ref_B2 = trees, ref_B2
        wpo = isinstance(self.objective, PairObjective) and self.objective.wpo
        self.head = Head(collision=wpo)
        mixed = isinstance(self.objective, MpoObjective) and "bco_pair" in self.objective.losses
        self.shifts = mixed or self.method == "bco_pair"

    def shares(self, indices: Sequence[int]) -> list[Share]:
        """The step's loss over these pairs, in forwards of at most `max_tokens` tokens."""
        chosen = list(indices)
        ref_B2 = None if self.ref_B2 is None else self.ref_B2.view(-1, 2, 2)[chosen].flatten(0, 1)
        trees = [self.trees[i] for i in chosen]
        cut = list(pieces(trees, self.max_tokens))
        step = StepPairs(trees, ref_B2, self.running.get("reward_mean", 0.0))
        if self.method in WHOLE_BATCH and len(cut) > 1:
            step = self._coupled(step, cut)
        return [partial(self._share, step, piece) for piece in cut]

    def evaluate(self) -> list[Share]:
        """The loss over all pairs."""
        return self.shares(range(len(self.trees)))

    def finish(self, row: dict[str, float], *, learnt: bool) -> dict[str, float]:
        """Keep the mean reward of all answers learnt so far: BCO's shift from the next step on."""
        if learnt and self.shifts:
            running = self.running
            steps = running.get("reward_steps", 0.0) + 1
            mean = (row["rewards/chosen"] + row["rewards/rejected"]) / 2
            before = running.get("reward_mean", 0.0)
            running |= {"reward_steps": steps, "reward_mean": before + (mean - before) / steps}
        return row

    def _score(self, piece: Piece) -> TokenScores:
        with self.policy.arithmetic():
            return self.policy.score(piece.trees, self.head)

    @torch.no_grad()
    def _coupled(self, step: StepPairs, cut: Sequence[Piece]) -> StepPairs:
        """First pass of a loss over the whole batch: its slope in every answer's log-prob.

        A second forward then only has to multiply its log-probs with these slopes: the exact
        gradient of the whole batch at any piece size, for one more forward.
        """
        with phase("forward"):
            answers_B = torch.cat([answer_logprobs(self._score(p), self.objective) for p in cut])
        with torch.enable_grad():
            leaf_B = answers_B.detach().requires_grad_()
            ref_B = _compared(step.ref_B2, slice(None), leaf_B.device)
            value_P = pair_losses(self.method, self.objective, leaf_B, ref_B, step.delta)
            (slope_B,) = torch.autograd.grad(value_P.sum(), leaf_B)
        return StepPairs(step.trees, step.ref_B2, step.delta, slope_B, value_P.detach())

    def _share(self, step: StepPairs, piece: Piece) -> Loss:
        scores = self._score(piece)
        answers_B = answer_logprobs(scores, self.objective)
        if step.slope_B is None or step.value_P is None:
            ref_B = _compared(step.ref_B2, piece.branches, answers_B.device)
            loss_P = pair_losses(self.method, self.objective, answers_B, ref_B, step.delta)
        else:
            moved_B = step.slope_B[piece.branches] * (answers_B - answers_B.detach())
            value_P = step.value_P[piece.branches.start // 2 : piece.branches.stop // 2]
            loss_P = value_P + moved_B.view(-1, 2).sum(1)
        if scores.collision_N is not None:
            loss_P = loss_P * wpo_weights(
                scores.logprobs_N, scores.collision_N, scores.branch_N, scores.branches
            )
        mean_B = scores.sums_B() / scores.lengths_B()
        nll_weight = 0.0 if isinstance(self.objective, OrpoObjective) else self.objective.nll_weight
        if nll_weight:
            loss_P = loss_P - nll_weight * mean_B[0::2]
        metrics = pair_metrics(self.objective.beta, scores, answers_B.detach(), step, piece)
        return Loss(loss_P.sum() / len(step.trees), metrics)


def pair_metrics(
    beta: float, scores: TokenScores, answers_B: torch.Tensor, step: StepPairs, piece: Piece
) -> dict[str, Metric]:
    """What users know from TRL, and how far the chosen answer has drifted from the reference."""
    sums_B, lengths_B = scores.sums_B().detach(), scores.lengths_B()
    ref_B = _compared(step.ref_B2, piece.branches, answers_B.device)
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
        plain_B = step.ref_B2[piece.branches, 0].to(sums_B.device)
        drift = ((sums_B - plain_B) / lengths_B)[0::2]
        metrics["displacement/chosen_per_token"] = mean_of(drift)
        metrics["displacement/chosen_below_reference"] = mean_of((drift < 0).float())
    return metrics


def _compared(
    ref_B2: torch.Tensor | None, branches: slice, device: torch.device
) -> torch.Tensor | None:
    """The reference's compared log-probs of these branches, [B]."""
    return None if ref_B2 is None else ref_B2[branches, 1].to(device)
