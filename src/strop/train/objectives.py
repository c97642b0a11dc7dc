"""From token scores to the loss of each offline method, with the metrics users know."""

from __future__ import annotations

import torch

from strop.losses.preference import dpo
from strop.losses.reduce import Loss
from strop.losses.supervised import nll
from strop.metrics.value import Mean, Metric, Sum
from strop.recipe.objective import DpoObjective
from strop.types import TokenScores


def supervised_loss(scores: TokenScores, *, tokens: int) -> Loss:
    """Mean negative log-likelihood over the step's `tokens` supervised tokens."""
    loss_N = nll(scores.logprobs_N)
    return Loss(loss_N.sum() / tokens, {"num_tokens": Sum(len(loss_N))})


def preference_loss(
    scores: TokenScores, ref_B: torch.Tensor, objective: DpoObjective, *, pairs: int
) -> Loss:
    """Mean DPO loss over the step's `pairs`; branches alternate chosen, rejected.

    With `nll_weight` w, adds w times the mean over pairs of the chosen answer's token NLL
    (RPO: Pang et al. 2024, arXiv 2404.19733, equation 1, with their alpha as w).
    """
    sums_B, lengths_B = scores.sums_B(), scores.lengths_B()
    chosen, rejected = sums_B[0::2], sums_B[1::2]
    ref_chosen, ref_rejected = ref_B[0::2], ref_B[1::2]
    loss_B = dpo(
        chosen,
        rejected,
        ref_chosen,
        ref_rejected,
        beta=objective.beta,
        label_smoothing=objective.label_smoothing,
    )
    if objective.nll_weight:
        loss_B = loss_B - objective.nll_weight * chosen / lengths_B[0::2]
    reward_chosen = objective.beta * (chosen - ref_chosen).detach()
    reward_rejected = objective.beta * (rejected - ref_rejected).detach()
    drift = ((chosen - ref_chosen) / lengths_B[0::2]).detach()
    metrics: dict[str, Metric] = {
        "rewards/chosen": _mean(reward_chosen),
        "rewards/rejected": _mean(reward_rejected),
        "rewards/margins": _mean(reward_chosen - reward_rejected),
        "rewards/accuracies": _mean((reward_chosen > reward_rejected).float()),
        "logps/chosen": _mean(chosen.detach()),
        "logps/rejected": _mean(rejected.detach()),
        "displacement/chosen_per_token": _mean(drift),
        "displacement/chosen_below_reference": _mean((drift < 0).float()),
        "num_tokens": Sum(len(scores.logprobs_N)),
    }
    return Loss(loss_B.sum() / pairs, metrics)


def _mean(values: torch.Tensor) -> Mean:
    return Mean(float(values.sum()), len(values))
