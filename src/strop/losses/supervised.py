"""Imitation losses, per supervised token."""

from __future__ import annotations

import torch


def nll(logprobs_N: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of each target token, nats, shape [N].

        loss = -log p(token | context)

    The maximum-likelihood objective of continued pretraining and SFT.
    """
    _expect_vector(logprobs_N)
    return -logprobs_N


def dft(logprobs_N: torch.Tensor) -> torch.Tensor:
    """Dynamic fine-tuning: each token's NLL weighted by its own probability, nats, shape [N].

        loss = -stopgrad(p) log p

    Wu et al. 2025 (arXiv 2508.05629). The gradient of NLL is that of a policy gradient with the
    reward 1 / p; the weight cancels it, so that unlikely tokens do not dominate.
    """
    _expect_vector(logprobs_N)
    return -logprobs_N.detach().exp() * logprobs_N


def _expect_vector(logprobs_N: torch.Tensor) -> None:
    if logprobs_N.dim() != 1 or not logprobs_N.is_floating_point():
        raise ValueError(
            f"logprobs must be a float vector [N], got {logprobs_N.dtype} "
            f"of shape {tuple(logprobs_N.shape)}"
        )
