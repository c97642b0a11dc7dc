"""The axes of a policy-gradient loss, each a small function; presets compose them.

    ratio level x surrogate x KL x denominator

Losses are to be minimised, so surrogates are negated objectives. All vectors are of shape [N].
"""

from __future__ import annotations

import torch


def token_ratio(
    log_ratio_N: torch.Tensor, advantage_N: torch.Tensor, branch_N: torch.Tensor
) -> torch.Tensor:
    """exp(log p_new - log p_old) of each token (PPO, GRPO)."""
    return log_ratio_N.exp()


def sequence_ratio(
    log_ratio_N: torch.Tensor, advantage_N: torch.Tensor, branch_N: torch.Tensor
) -> torch.Tensor:
    """Length-normalised ratio of the whole answer, given to each of its tokens.

        s = exp(mean over tokens of log ratio)

    Zheng et al. 2025 (GSPO, arXiv 2507.18071), equation 7.
    """
    return branch_mean(log_ratio_N, branch_N)[branch_N].exp()


def geometric_ratio(
    log_ratio_N: torch.Tensor,
    advantage_N: torch.Tensor,
    branch_N: torch.Tensor,
    *,
    low: float,
    high: float,
) -> torch.Tensor:
    """Geometric mean of the answer's token ratios, each clipped first, given to each token.

        l = min(sgn(A) log r, sgn(A) clip(log r, -low, high)) sgn(A)
        s = exp(mean over tokens of l)

    Zhao et al. 2025 (GMPO, arXiv 2507.20673), equation 4 and its algorithm; low = high = 0.4.
    """
    sign_N = torch.where(advantage_N < 0, -1.0, 1.0)
    clipped_N = torch.minimum(sign_N * log_ratio_N, sign_N * log_ratio_N.clamp(-low, high))
    return branch_mean(sign_N * clipped_N, branch_N)[branch_N].exp()


def clip(
    ratio_N: torch.Tensor,
    advantage_N: torch.Tensor,
    *,
    low: float,
    high: float,
    dual: float | None = None,
) -> torch.Tensor:
    """Clipped surrogate.

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


def clipped_weight(
    ratio_N: torch.Tensor, advantage_N: torch.Tensor, logprobs_N: torch.Tensor, *, high: float
) -> torch.Tensor:
    """REINFORCE with a capped importance weight; every token keeps a gradient.

        loss = -stopgrad(min(r, 1 + high)) A log p

    MiniMax 2025 (CISPO, arXiv 2506.13585), equations 4 and 5: no lower bound; the cap is the ratio
    1 + high, not high itself.
    """
    return -ratio_N.detach().clamp(max=1 + high) * advantage_N * logprobs_N


def soft_gate(
    ratio_N: torch.Tensor, advantage_N: torch.Tensor, *, positive: float, negative: float
) -> torch.Tensor:
    """A sigmoid in place of the clip: gradient 1 on policy, fading on both sides of ratio 1.

        loss = -4 / t sigmoid(t (r - 1)) A,   t = positive where A > 0, else negative

    Gao et al. 2025 (SAPO, arXiv 2511.20347), equations 5 and 6; 1.0 and 1.05 there: tokens of bad
    answers fade sooner.
    """
    # full_like: two plain floats would make a float32 tensor, whatever the ratio's dtype
    t_N = torch.where(advantage_N > 0, torch.full_like(ratio_N, positive), negative)
    return -(4 / t_N) * torch.sigmoid(t_N * (ratio_N - 1)) * advantage_N


def weighted(ratio_N: torch.Tensor, advantage_N: torch.Tensor) -> torch.Tensor:
    """-r A: the importance-weighted surrogate without a bound."""
    return -ratio_N * advantage_N


def reinforce(advantage_N: torch.Tensor, logprobs_N: torch.Tensor) -> torch.Tensor:
    """-A log p: the score-function estimator (Williams 1992), right on policy only."""
    return -advantage_N * logprobs_N


def value_loss(
    value_N: torch.Tensor, old_N: torch.Tensor, return_N: torch.Tensor, *, clip: float
) -> torch.Tensor:
    """The critic's squared error with a bounded change from the old value.

        loss = 1/2 max((v - R)^2, (old + clip(v - old, -c, c) - R)^2)

    Schulman et al. 2017 as implemented in their baselines; c = 0.2.
    """
    bounded_N = old_N + (value_N - old_N).clamp(-clip, clip)
    return 0.5 * torch.maximum((value_N - return_N).square(), (bounded_N - return_N).square())


def outside_low(ratio_N: torch.Tensor, advantage_N: torch.Tensor, low: float) -> torch.Tensor:
    """1.0 where a lower bound cuts the gradient (ratio below 1 - low, advantage negative)."""
    return ((ratio_N < 1 - low) & (advantage_N < 0)).float()


def outside_high(ratio_N: torch.Tensor, advantage_N: torch.Tensor, high: float) -> torch.Tensor:
    """1.0 where an upper bound cuts the gradient (ratio above 1 + high, advantage positive)."""
    return ((ratio_N > 1 + high) & (advantage_N > 0)).float()


def branch_sum(values_N: torch.Tensor, branch_N: torch.Tensor) -> torch.Tensor:
    """Sum of each branch's tokens, shape [B]; branches are numbered from 0."""
    lengths_B = torch.bincount(branch_N)
    return values_N.new_zeros(len(lengths_B)).index_add(0, branch_N, values_N)


def branch_mean(values_N: torch.Tensor, branch_N: torch.Tensor) -> torch.Tensor:
    """Mean of each branch's tokens, shape [B]; 0 for a branch without tokens."""
    return branch_sum(values_N, branch_N) / torch.bincount(branch_N).clamp(min=1)
