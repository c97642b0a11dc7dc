"""Advantages of the G completions of each prompt, from their rewards.

`rewards_PG` is float [P, G] with NaN where a completion could not be scored: such a completion
leaves the group's statistics and gets advantage 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

STD_EPSILON = 1e-4
"""Added to the group's std, as in the reference implementations of GRPO."""


def group_mean(rewards_PG: torch.Tensor) -> torch.Tensor:
    """reward - mean of its group, [P, G] (Dr. GRPO, arXiv 2503.20783)."""
    _expect_groups(rewards_PG)
    return (rewards_PG - rewards_PG.nanmean(1, keepdim=True)).nan_to_num(0.0)


def group_mean_std(rewards_PG: torch.Tensor) -> torch.Tensor:
    """(reward - mean) / (std + 1e-4) within the group, [P, G] (GRPO, arXiv 2402.03300, 4.1.2).

    The std is the sample std (divides by the scored completions less one).
    """
    centred_PG = group_mean(rewards_PG)
    return centred_PG / (group_std(rewards_PG)[:, None] + STD_EPSILON)


def group_std(rewards_PG: torch.Tensor) -> torch.Tensor:
    """Sample std of the scored rewards of each group, [P]; 0 for fewer than two."""
    _expect_groups(rewards_PG)
    centred_PG = group_mean(rewards_PG)
    scored_P = (~rewards_PG.isnan()).sum(1)
    return (centred_PG.square().sum(1) / (scored_P - 1).clamp(min=1)).sqrt()


ADVANTAGES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "group_mean": group_mean,
    "group_mean_std": group_mean_std,
}


def _expect_groups(rewards_PG: torch.Tensor) -> None:
    if rewards_PG.dim() != 2 or not rewards_PG.is_floating_point():
        raise ValueError(
            f"rewards must be float [prompts, completions], got {rewards_PG.dtype} "
            f"of shape {tuple(rewards_PG.shape)}"
        )
