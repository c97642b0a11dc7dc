"""Estimators of KL(policy || reference) from tokens the policy sampled, per token.

Schulman 2020, "Approximating KL divergence" (joschu.net/blog/kl-approx.html). With
r = p_ref / p_policy at the sampled token:

    k1 = -log r          unbiased, high variance, can be negative
    k2 = (log r)^2 / 2   biased, low variance; its *gradient* is that of the reverse KL
    k3 = r - 1 - log r   unbiased, low variance, never negative
"""

from __future__ import annotations

from collections.abc import Callable

import torch


def k1(policy_N: torch.Tensor, ref_N: torch.Tensor) -> torch.Tensor:
    """log p_policy - log p_ref, shape [N]."""
    return policy_N - ref_N


def k2(policy_N: torch.Tensor, ref_N: torch.Tensor) -> torch.Tensor:
    """Half the squared log-ratio, shape [N]."""
    return (policy_N - ref_N).square() / 2


def k3(policy_N: torch.Tensor, ref_N: torch.Tensor) -> torch.Tensor:
    """exp(log r) - 1 - log r, shape [N]; the form in GRPO (arXiv 2402.03300, equation 4)."""
    log_r_N = ref_N - policy_N
    return torch.expm1(log_r_N) - log_r_N


ESTIMATORS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "k1": k1,
    "k2": k2,
    "k3": k3,
}
