"""Weights of tokens and pairs that multiply log-probs or losses; none has a gradient."""

from __future__ import annotations

import torch

from strop.losses.preference import expect_between, expect_pairs


def length_desensitized_weights(
    lengths_B: torch.Tensor, position_N: torch.Tensor, branch_N: torch.Tensor, *, alpha: float
) -> torch.Tensor:
    """Weight of each token's log-prob in LD-DPO's sums, float, shape [N].

        weight = 1      at positions below the shorter length of the pair
                 alpha  beyond

    Liu et al. 2024 (arXiv 2409.06411), the modified likelihood of section 3; multiply policy and
    reference log-probs alike. alpha = 1 is DPO, alpha = 0 cuts both answers to the shorter length;
    the paper tunes it between the two for each model.

    `lengths_B` counts the supervised tokens of every branch, chosen and rejected alternating,
    shape [B] with B even; `position_N` is a token's place among them, from 0; `branch_N` its
    branch.
    """
    expect_between("alpha", alpha, 0.0, 1.0)
    if lengths_B.dim() != 1 or len(lengths_B) % 2:
        raise ValueError(f"lengths must come in pairs [B], got shape {tuple(lengths_B.shape)}")
    _expect_indices(position_N, branch_N)
    shorter_B = lengths_B.reshape(-1, 2).amin(1).repeat_interleave(2)
    return torch.where(position_N < shorter_B[branch_N], 1.0, alpha)


def wpo_weights(
    logprobs_N: torch.Tensor, collision_N: torch.Tensor, branch_N: torch.Tensor, branches: int
) -> torch.Tensor:
    """Weight of each pair by its likelihood under the policy, float, shape [P], detached.

        collision = log sum_v p(v)^2
        weight    = min(1, exp(mean over chosen of (logprob - collision)
                               + mean over rejected of (logprob - collision)))

    Zhou et al. 2024 (WPO, arXiv 2406.11827), equation 2 with sampled alignment: at every position
    the policy's probability of the token is compared with what it would be for tokens the policy
    samples itself. Confident answers would exceed the cap (TRL 1.16 has none).

    `logprobs_N`, `collision_N` float, `branch_N` integer, all [N]; `branches` is even, chosen and
    rejected alternating. A branch without tokens counts as one the policy sampled.
    """
    expect_pairs(logprobs_N, collision_N)
    _expect_indices(branch_N, branch_N)
    if branch_N.shape != logprobs_N.shape or branches % 2:
        raise ValueError(
            f"expected branch [N] like logprobs and branches even, got shape "
            f"{tuple(branch_N.shape)} and {branches}"
        )
    excess_N = (logprobs_N - collision_N).detach()
    sums_B = excess_N.new_zeros(branches).index_add(0, branch_N, excess_N)
    lengths_B = torch.bincount(branch_N, minlength=branches).clamp(min=1)
    return (sums_B / lengths_B).reshape(-1, 2).sum(1).clamp(max=0).exp()


def _expect_indices(position_N: torch.Tensor, branch_N: torch.Tensor) -> None:
    if branch_N.dim() != 1 or branch_N.shape != position_N.shape or branch_N.is_floating_point():
        raise ValueError(
            f"expected positions and integer branches of one shape [N], got "
            f"{tuple(position_N.shape)} and {branch_N.dtype} {tuple(branch_N.shape)}"
        )
