"""Corrects for tokens that were sampled with other probabilities than the trainer's.

The sampler (another engine, another precision) draws from q, the trainer computes p for the same
tokens. The weight w = p / q makes the estimate unbiased; a bound on w limits its variance. Yao et
al. 2025, "Your efficient RL framework secretly brings you off-policy RL training" (TIS); IcePop
(Ling team 2025, arXiv 2510.18855) masks instead of truncating.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from strop.losses.policy import branch_sum


@dataclass(frozen=True, slots=True)
class MismatchWeights:
    """`weight_N` multiplies each token's surrogate; `masked_N` says which tokens are left out.

    `ess` is the effective sample size as a share: (sum w)^2 / (N sum w^2) before any bound.
    """

    weight_N: torch.Tensor
    masked_N: torch.Tensor
    ess: float


def mismatch_weights(
    trainer_N: torch.Tensor,
    sampler_N: torch.Tensor,
    branch_N: torch.Tensor,
    *,
    level: Literal["token", "sequence"],
    bound: Literal["truncate", "mask"],
    cap: float,
    floor: float | None = None,
) -> MismatchWeights:
    """Importance weights trainer / sampler from log-probs of shape [N].

    token:    w_t = p_t / q_t
    sequence: w   = prod_t p_t / q_t, given to each token of the answer
    truncate: min(w, cap)        mask: w where floor <= w <= cap, else 0
    """
    log_N = trainer_N - sampler_N
    if level == "sequence":
        log_N = branch_sum(log_N, branch_N)[branch_N]
    # ess is the same for w and c w; relative to the largest weight, no square over- or underflows
    relative_N = (log_N - log_N.max()).exp()
    ess = float(relative_N.sum().square() / (len(log_N) * relative_N.square().sum()))
    weight_N = log_N.exp()
    if bound == "truncate":
        return MismatchWeights(
            weight_N.clamp(max=cap), torch.zeros_like(weight_N, dtype=torch.bool), ess
        )
    masked_N = weight_N > cap
    if floor is not None:
        masked_N = masked_N | (weight_N < floor)
    return MismatchWeights(weight_N.masked_fill(masked_N, 0.0), masked_N, ess)
