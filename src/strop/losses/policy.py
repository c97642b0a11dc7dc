"""The axes of a policy-gradient loss, each a small function; presets compose them.

    ratio level x surrogate x KL x denominator

Losses are to be minimised, so surrogates are negated objectives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch

RatioLevel = Literal["token", "sequence"]


def token_ratio(log_ratio_N: torch.Tensor, branch_N: torch.Tensor) -> torch.Tensor:
    """exp(log p_new - log p_old) of each token, shape [N] (PPO, GRPO)."""
    return log_ratio_N.exp()


def sequence_ratio(log_ratio_N: torch.Tensor, branch_N: torch.Tensor) -> torch.Tensor:
    """Length-normalised ratio of the whole answer, given to each of its tokens, shape [N].

        s = exp(mean over tokens of log ratio)

    Zheng et al. 2025 (GSPO, arXiv 2507.18071), equation 7.
    """
    lengths_B = torch.bincount(branch_N).to(log_ratio_N.dtype)
    sums_B = log_ratio_N.new_zeros(len(lengths_B)).index_add(0, branch_N, log_ratio_N)
    return (sums_B / lengths_B.clamp(min=1))[branch_N].exp()


RATIOS: dict[RatioLevel, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "token": token_ratio,
    "sequence": sequence_ratio,
}


def clip(
    ratio_N: torch.Tensor,
    advantage_N: torch.Tensor,
    *,
    low: float,
    high: float,
    dual: float | None = None,
) -> torch.Tensor:
    """Clipped surrogate, shape [N].

        loss = -min(r A, clip(r, 1 - low, 1 + high) A)
        dual: for A < 0, loss = min(loss, -dual A)

    Schulman et al. 2017 (PPO, arXiv 1707.06347), equation 7, default low = high = 0.2; a larger
    `high` is DAPO's clip-higher (arXiv 2503.14476, equation 10: 0.2 / 0.28); `dual` > 1 bounds
    the loss of a bad token that became likely (Ye et al. 2020, arXiv 1912.09729, equation 5).
    """
    loss_N = -torch.minimum(ratio_N * advantage_N, ratio_N.clamp(1 - low, 1 + high) * advantage_N)
    if dual is None:
        return loss_N
    return torch.where(advantage_N < 0, torch.minimum(loss_N, -dual * advantage_N), loss_N)


def clipped_low(ratio_N: torch.Tensor, advantage_N: torch.Tensor, low: float) -> torch.Tensor:
    """1.0 where the lower bound cuts the gradient (ratio below 1 - low, advantage negative)."""
    return ((ratio_N < 1 - low) & (advantage_N < 0)).float()


def clipped_high(ratio_N: torch.Tensor, advantage_N: torch.Tensor, high: float) -> torch.Tensor:
    """1.0 where the upper bound cuts the gradient (ratio above 1 + high, advantage positive)."""
    return ((ratio_N > 1 + high) & (advantage_N > 0)).float()
