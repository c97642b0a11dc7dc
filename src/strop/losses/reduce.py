"""Reduces per-token losses to the scalar that is differentiated.

Every denominator is counted over the whole optimizer step and passed in, so that accumulation,
data parallelism and one big batch give the same gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from strop.losses.metrics import Mean, Metric


@dataclass(frozen=True, slots=True)
class Loss:
    """A scalar to differentiate and what to log: `Loss(tensor(0.69), {"loss": Mean(0.69, 1)})`."""

    value: torch.Tensor
    metrics: Mapping[str, Metric]


def mean_of(values: torch.Tensor) -> Mean:
    """The mean of a vector as a metric that merges with other forwards' means."""
    return Mean(values.detach().sum().double(), len(values))


@dataclass(frozen=True, slots=True)
class StepCounts:
    """Counts of the whole optimizer step: `StepCounts(sequences=256, tokens=5120)`.

    Groups that were skipped because they carry no gradient are still counted. `max_length` is the
    longest answer allowed, the constant of Dr. GRPO.
    """

    sequences: float
    tokens: float
    max_length: int


Denominator = Literal["sequence_mean", "sequence_sum", "token_mean", "constant"]


def sequence_mean(loss_N: torch.Tensor, branch_N: torch.Tensor, counts: StepCounts) -> torch.Tensor:
    """Mean over the step's sequences of each sequence's token mean (GRPO)."""
    lengths_B = torch.bincount(branch_N).to(loss_N.dtype)
    return (loss_N / lengths_B[branch_N]).sum() / counts.sequences


def sequence_sum(loss_N: torch.Tensor, branch_N: torch.Tensor, counts: StepCounts) -> torch.Tensor:
    """Mean over the step's sequences of each sequence's token sum (REINFORCE, RLOO)."""
    return loss_N.sum() / counts.sequences


def token_mean(loss_N: torch.Tensor, branch_N: torch.Tensor, counts: StepCounts) -> torch.Tensor:
    """Mean over the step's tokens (DAPO)."""
    return loss_N.sum() / counts.tokens


def constant(loss_N: torch.Tensor, branch_N: torch.Tensor, counts: StepCounts) -> torch.Tensor:
    """Sum over tokens by sequences times the longest length allowed (Dr. GRPO)."""
    return loss_N.sum() / (counts.sequences * counts.max_length)


DENOMINATORS: dict[
    Denominator, Callable[[torch.Tensor, torch.Tensor, StepCounts], torch.Tensor]
] = {
    "sequence_mean": sequence_mean,
    "sequence_sum": sequence_sum,
    "token_mean": token_mean,
    "constant": constant,
}
