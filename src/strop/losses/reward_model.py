"""Losses of reward models: one number per pair, from scalar rewards of shape [B]."""

from __future__ import annotations

import math

import torch
from torch.nn.functional import logsigmoid

from strop.losses.preference import expect_between, expect_pairs


def bradley_terry(
    chosen_B: torch.Tensor,
    rejected_B: torch.Tensor,
    *,
    margin_B: torch.Tensor | None = None,
    centering: float = 0.0,
) -> torch.Tensor:
    """Negative log-likelihood of the preference, shape [B].

        loss = -log sigmoid(chosen - rejected - margin) + centering (chosen + rejected)^2

    Touvron et al. 2023 (Llama 2, arXiv 2307.09288), equations 1 and 2; `margin_B` is larger for
    pairs rated further apart. The likelihood leaves the rewards' mean free; `centering` holds it
    near 0 (Eisenstein et al. 2023, arXiv 2312.09244, whose default is 0.01).

    Rewards and margin are float, shape [B].
    """
    expect_pairs(chosen_B, rejected_B, *([] if margin_B is None else [margin_B]))
    expect_between("centering", centering, 0.0, math.inf)
    gap_B = chosen_B - rejected_B
    if margin_B is not None:
        gap_B = gap_B - margin_B
    return centering * (chosen_B + rejected_B).square() - logsigmoid(gap_B)
