"""Losses over pairs: one number per pair, from sums of log-probs of shape [B]."""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid


def dpo(
    policy_chosen: torch.Tensor,
    policy_rejected: torch.Tensor,
    ref_chosen: torch.Tensor,
    ref_rejected: torch.Tensor,
    *,
    beta: float,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Direct preference optimisation, shape [B].

        h    = (policy_chosen - ref_chosen) - (policy_rejected - ref_rejected)
        loss = -(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h)

    Rafailov et al. 2023 (arXiv 2305.18290), equation 7; `label_smoothing` e > 0 is the
    conservative variant (Mitchell 2023, "A note on DPO with noisy preferences", equation 3), for
    labels that are flipped with probability e. The paper's default is beta = 0.1.

    All four arguments are sums of log-probs over the answer's supervised tokens, float, shape [B].
    """
    expect_pairs(policy_chosen, policy_rejected, ref_chosen, ref_rejected)
    expect_between("label_smoothing", label_smoothing, 0.0, 0.5)
    margin_B = beta * ((policy_chosen - ref_chosen) - (policy_rejected - ref_rejected))
    return -(1 - label_smoothing) * logsigmoid(margin_B) - label_smoothing * logsigmoid(-margin_B)


def expect_pairs(*sums: torch.Tensor) -> None:
    """Raise unless all are float vectors of one shape [B]."""
    shape = sums[0].shape
    for tensor in sums:
        if tensor.dim() != 1 or tensor.shape != shape or not tensor.is_floating_point():
            described = [f"{t.dtype} {tuple(t.shape)}" for t in sums]
            raise ValueError(f"expected float vectors of one shape [B], got {described}")


def expect_between(name: str, value: float, low: float, high: float) -> None:
    """Raise unless low <= value <= high."""
    if not low <= value <= high:
        raise ValueError(f"{name} must be between {low} and {high}, got {value}")
