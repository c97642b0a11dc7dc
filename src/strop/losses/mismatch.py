"""Corrects for tokens that were sampled with other probabilities than the trainer's.

The sampler (another engine, another precision) draws from q, the trainer computes p for the same
tokens. The weight w = p / q makes the estimate unbiased; a bound on w limits its variance. Yao et
al. 2025, "Your efficient RL framework secretly brings you off-policy RL training" (TIS); IcePop
(Ling team 2025, arXiv 2510.18855) masks instead of truncating.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from strop.losses.policy import branch_sum


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums of weights w and of their squares, as shares of the largest w, `exp(log_scale)`: so no
    square over- or underflows. For weights 1 and 2: `Moments(log 2, 1.5, 1.25, 2)`."""

    log_scale: float
    first: float
    second: float
    count: int

    @classmethod
    def of(cls, log_N: torch.Tensor) -> Moments:
        """Of weights by their logarithms; of none, sums of 0."""
        scale = log_N.max() if len(log_N) else log_N.new_zeros(())
        relative_N = (log_N - scale).exp()
        sums = float(relative_N.sum()), float(relative_N.square().sum())
        return cls(float(scale), *sums, len(log_N))


def effective_share(parts: Sequence[Moments]) -> float:
    """The effective sample size of all weights together, as a share of their number:
    (sum w)^2 / (N sum w^2)."""
    largest = max(part.log_scale for part in parts)
    shares = [math.exp(part.log_scale - largest) for part in parts]
    first = sum(part.first * share for part, share in zip(parts, shares, strict=True))
    second = sum(part.second * share**2 for part, share in zip(parts, shares, strict=True))
    return first**2 / (sum(part.count for part in parts) * second)


@dataclass(frozen=True, slots=True)
class MismatchWeights:
    """`weight_N` multiplies each token's surrogate; `masked_N` says which tokens are left out;
    `moments` are of the weights before any bound."""

    weight_N: torch.Tensor
    masked_N: torch.Tensor
    moments: Moments


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
    moments = Moments.of(log_N)
    weight_N = log_N.exp()
    if bound == "truncate":
        return MismatchWeights(
            weight_N.clamp(max=cap), torch.zeros_like(weight_N, dtype=torch.bool), moments
        )
    masked_N = weight_N > cap
    if floor is not None:
        masked_N = masked_N | (weight_N < floor)
    return MismatchWeights(weight_N.masked_fill(masked_N, 0.0), masked_N, moments)
