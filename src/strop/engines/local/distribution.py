"""Draws tokens from logits: temperature, truncations, and the draw itself."""

from __future__ import annotations

import math

import torch

from strop.engines.engine import Sampling

BLOCK = 128
"""Tokens whose probabilities are summed before the draw looks into them one by one."""

NEARLY_GREEDY = 1e-6
"""Below this temperature logits may grow beyond float32, unless the largest is 0."""
COLDEST = 1e-30
"""Lower temperatures are this one: float32 would make them 0, and logits differ by far more."""


def kept_logits(logits_RV: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """float32 logits, [R, V], whose softmax is the distribution that tokens are drawn from.

    Tokens cut by top-k, top-p or min-p have logit -inf; greedy keeps only the argmax (the first of
    equals).
    """
    logits_RV = logits_RV.float()
    if sampling.temperature == 0:
        best_R1 = most_likely(logits_RV)[:, None]
        return torch.full_like(logits_RV, float("-inf")).scatter(-1, best_R1, 0.0)
    if sampling.temperature < NEARLY_GREEDY:
        logits_RV = logits_RV - logits_RV.amax(-1, keepdim=True)
        logits_RV = logits_RV / max(sampling.temperature, COLDEST)
    elif sampling.temperature != 1:
        logits_RV = logits_RV / sampling.temperature
    if 0 < sampling.top_k < logits_RV.shape[-1]:
        least_R1 = logits_RV.topk(sampling.top_k).values[:, -1:]
        logits_RV = logits_RV.masked_fill(logits_RV < least_R1, float("-inf"))
    cut_RV = logits_RV
    if sampling.top_p < 1:
        sorted_RV, order_RV = logits_RV.softmax(-1).sort(descending=True, stable=True)
        before_RV = sorted_RV.cumsum(-1) - sorted_RV
        outside_RV = torch.zeros_like(order_RV, dtype=torch.bool)
        outside_RV = outside_RV.scatter(-1, order_RV, before_RV >= sampling.top_p)
        cut_RV = cut_RV.masked_fill(outside_RV, float("-inf"))
    if sampling.min_p > 0:
        floor_R1 = logits_RV.amax(-1, keepdim=True) + math.log(sampling.min_p)
        cut_RV = cut_RV.masked_fill(logits_RV < floor_R1, float("-inf"))
    return cut_RV


def most_likely(logits_RV: torch.Tensor) -> torch.Tensor:
    """The token with the highest logit in each row, the first of equals, [R].

    On a CPU numpy finds it: torch took 8 times as long there (29 microseconds for eight rows of
    4096).
    """
    if logits_RV.device.type != "cpu":
        return logits_RV.argmax(-1)
    return torch.from_numpy(logits_RV.float().numpy().argmax(-1))


def entropy(logits_RV: torch.Tensor) -> torch.Tensor:
    """Entropy of softmax(logits), nats, [R]."""
    found: torch.Tensor = torch.special.entr(logits_RV.float().softmax(-1)).sum(-1)
    return found


def likeliest(logits_RV: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The likeliest tokens of softmax(logits) and their log-probs, most likely first, both
    [R, count]; a token without mass has log-prob -inf."""
    most_RK, token_RK = logits_RV.topk(min(count, logits_RV.shape[-1]))
    return token_RK, most_RK - logits_RV.logsumexp(-1, keepdim=True)


def draw(
    logits_RV: torch.Tensor, row_N: torch.Tensor, uniform_N: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inverse-CDF draws from softmax(logits[row]): tokens and their float32 log-probs, both [N].

    Each draw takes one float64 number in [0, 1). The logits are overwritten by the probabilities,
    because a pass over [R, V] that allocates costs as much as three that do not.
    """
    mass_RV = logits_RV.sub_(logits_RV.amax(-1, keepdim=True)).exp_()
    sums_RB = _block_sums(mass_RV)
    sums_NB, cdf_NB = sums_RB[row_N], sums_RB.cumsum(-1, dtype=torch.float64)[row_N]
    target_N1 = uniform_N[:, None] * cdf_NB[:, -1:]
    block_N1 = _first_above(cdf_NB, target_N1)
    rest_N1 = target_N1 - cdf_NB.gather(1, block_N1) + sums_NB.gather(1, block_N1)
    token_NB = block_N1 * BLOCK + torch.arange(BLOCK, device=block_N1.device)
    last = mass_RV.shape[1] - 1
    mass_NB = mass_RV[row_N[:, None], token_NB.clamp(max=last)].masked_fill_(token_NB > last, 0)
    within_N1 = _first_above(mass_NB.cumsum(-1, dtype=torch.float64), rest_N1)
    logprob_N1 = (mass_NB.gather(1, within_N1) / cdf_NB[:, -1:]).log().float()
    # beyond the last token only if logits are NaN, and then so is the log-prob
    return token_NB.gather(1, within_N1).squeeze(1).clamp_(max=last), logprob_N1.squeeze(1)


def _block_sums(mass_RV: torch.Tensor) -> torch.Tensor:
    """Sums of every `BLOCK` tokens and of what is left over, [R, blocks]."""
    blocks, left = divmod(mass_RV.shape[1], BLOCK)
    whole_RV = mass_RV[:, : blocks * BLOCK]
    sums_RB: torch.Tensor = whole_RV.unflatten(1, (blocks, BLOCK)).sum(-1)
    if not left:
        return sums_RB
    return torch.cat([sums_RB, mass_RV[:, blocks * BLOCK :].sum(-1, keepdim=True)], 1)


def _first_above(cdf_NK: torch.Tensor, target_N1: torch.Tensor) -> torch.Tensor:
    """Where the cumulative sum first exceeds its row's target, [N, 1]; never at a token without
    mass.

    Rounding can push the target to the very end; then it is the last token with mass.
    """
    below_N1 = torch.minimum(target_N1, cdf_NK[:, -1:] * (1 - 2**-52))
    return torch.searchsorted(cdf_NK, below_N1, right=True).clamp_(max=cdf_NK.shape[1] - 1)
