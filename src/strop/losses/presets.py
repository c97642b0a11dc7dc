"""Policy-gradient methods as choices along the four axes of `policy`: about ten lines a paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from strop.losses.divergence import ESTIMATORS
from strop.losses.policy import RATIOS, RatioLevel, clip, clipped_high, clipped_low
from strop.losses.reduce import DENOMINATORS, Denominator, Loss, StepCounts
from strop.metrics.value import Mean

AdvantageName = Literal["group_mean_std", "group_mean"]


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """One method: where the ratio is taken, how it is clipped, which KL, what divides the sum.

    `epsilon_low` and `epsilon_high` bound the ratio to [1 - low, 1 + high]; `beta` weighs the KL
    to the reference (0 needs no reference); `advantage` is the baseline the paper pairs it with.
    """

    ratio: RatioLevel
    epsilon_low: float
    epsilon_high: float
    dual_clip: float | None
    kl: Literal["k1", "k2", "k3"]
    beta: float
    denominator: Denominator
    advantage: AdvantageName


def grpo(
    *, epsilon_low: float = 0.2, epsilon_high: float = 0.2, beta: float = 0.04,
    kl: Literal["k1", "k2", "k3"] = "k3", dual_clip: float | None = None,
) -> PolicyLoss:  # fmt: skip
    """Group-relative policy optimisation: Shao et al. 2024 (arXiv 2402.03300), equation 3.

    Token ratio, clip 0.2, k3 with beta 0.04, mean over sequences of token means.
    """
    return PolicyLoss(
        "token", epsilon_low, epsilon_high, dual_clip, kl, beta, "sequence_mean", "group_mean_std"
    )


def dapo(
    *, epsilon_low: float = 0.2, epsilon_high: float = 0.28, beta: float = 0.0,
    kl: Literal["k1", "k2", "k3"] = "k3", dual_clip: float | None = None,
) -> PolicyLoss:  # fmt: skip
    """DAPO's loss: Yu et al. 2025 (arXiv 2503.14476), equation 8.

    Clip-higher 0.2 / 0.28, no KL, token mean over the whole step. Its dynamic sampling, overlong
    shaping and masking are options of the rollout, not of the loss.
    """
    return PolicyLoss(
        "token", epsilon_low, epsilon_high, dual_clip, kl, beta, "token_mean", "group_mean_std"
    )


def dr_grpo(
    *, epsilon_low: float = 0.2, epsilon_high: float = 0.2, beta: float = 0.0,
    kl: Literal["k1", "k2", "k3"] = "k3", dual_clip: float | None = None,
) -> PolicyLoss:  # fmt: skip
    """GRPO done right: Liu et al. 2025 (arXiv 2503.20783), section 3.2.

    Constant denominator (no length bias) and no division by the group's std (no difficulty bias).
    """
    return PolicyLoss(
        "token", epsilon_low, epsilon_high, dual_clip, kl, beta, "constant", "group_mean"
    )


PRESETS: dict[str, Callable[..., PolicyLoss]] = {"grpo": grpo, "dapo": dapo, "dr_grpo": dr_grpo}


@dataclass(frozen=True, slots=True)
class PolicyTokens:
    """What a policy loss reads, all of shape [N]; `ref_N` is None when no reference is used."""

    logprobs_N: torch.Tensor
    old_N: torch.Tensor
    ref_N: torch.Tensor | None
    advantage_N: torch.Tensor
    branch_N: torch.Tensor


def policy_loss(method: PolicyLoss, tokens: PolicyTokens, counts: StepCounts) -> Loss:
    """The method's scalar over these tokens, with its clip fractions and KL as metrics.

    Raises `ValueError` when `beta` is not zero and there are no reference log-probs.
    """
    if method.beta != 0 and tokens.ref_N is None:
        raise ValueError("beta is not zero, so the reference log-probs are needed")
    ratio_N = RATIOS[method.ratio](tokens.logprobs_N - tokens.old_N, tokens.branch_N)
    loss_N = clip(
        ratio_N,
        tokens.advantage_N,
        low=method.epsilon_low,
        high=method.epsilon_high,
        dual=method.dual_clip,
    )
    count = len(loss_N)
    low_N = clipped_low(ratio_N, tokens.advantage_N, method.epsilon_low)
    high_N = clipped_high(ratio_N, tokens.advantage_N, method.epsilon_high)
    metrics = {
        "clip_ratio/low_mean": Mean(float(low_N.sum()), count),
        "clip_ratio/high_mean": Mean(float(high_N.sum()), count),
    }
    if tokens.ref_N is not None:
        kl_N = ESTIMATORS[method.kl](tokens.logprobs_N, tokens.ref_N)
        loss_N = loss_N + method.beta * kl_N
        metrics["kl"] = Mean(float(kl_N.detach().sum()), count)
    value = DENOMINATORS[method.denominator](loss_N, tokens.branch_N, counts)
    return Loss(value, metrics)
