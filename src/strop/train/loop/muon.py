"""Muon with its orthogonalisation in float32, for processors that only emulate bfloat16."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch


class Float32Muon(torch.optim.Muon):
    """torch's Muon with the same options and state, but matrix products in float32.

    Jordan et al. 2024 (kellerjordan.github.io/posts/muon): momentum, then the nearest (nearly)
    orthogonal matrix, scaled to AdamW's root mean square (Liu et al. 2025, arXiv 2502.16982).
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient; there is no closure here."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    _update(parameter, self.state[parameter], group)


def _update(parameter: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    gradient = parameter.grad
    assert gradient is not None
    if "momentum_buffer" not in state:
        state["momentum_buffer"] = torch.zeros_like(gradient)
    momentum = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
    ahead = gradient.lerp(momentum, group["momentum"])  # Nesterov's look ahead
    direction = orthogonalised(ahead, group["ns_coefficients"], group["ns_steps"], group["eps"])
    scale = 0.2 * math.sqrt(max(parameter.shape))
    parameter.mul_(1 - group["lr"] * group["weight_decay"])
    parameter.add_(direction, alpha=-group["lr"] * scale)


def orthogonalised(
    matrix_NM: torch.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> torch.Tensor:
    """The matrix with its singular values s (divided by its Frobenius norm) moved towards 1.

    Each Newton-Schulz step replaces X by a X + b (X X') X + c (X X')^2 X, which takes s to
    a s + b s^3 + c s^5 and leaves the singular vectors alone.
    """
    a, b, c = coefficients
    tall = matrix_NM.shape[0] > matrix_NM.shape[1]
    x = matrix_NM.T if tall else matrix_NM
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
