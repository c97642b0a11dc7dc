"""Advantages from rewards: relative to a group, to a batch, or to a learnt value.

`rewards_PG` is float [P, G] with NaN where a completion could not be scored: such a completion
leaves the group's statistics and gets advantage 0. Token-level functions take the tokens of all
answers end to end, `lengths` saying where each answer ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

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


def leave_one_out(rewards_PG: torch.Tensor) -> torch.Tensor:
    """reward - mean of the *other* scored completions, [P, G] (RLOO, arXiv 2402.14740, eq. 8).

    Equals group_mean times n / (n - 1) for n scored completions; 0 where there is no other.
    """
    centred_PG = group_mean(rewards_PG)
    # in the rewards' dtype: a quotient of integers would be single precision
    scored_P1 = (~rewards_PG.isnan()).sum(1, keepdim=True).to(rewards_PG.dtype)
    return centred_PG * torch.where(scored_P1 > 1, scored_P1 / (scored_P1 - 1).clamp(min=1), 0.0)


def group_std(rewards_PG: torch.Tensor) -> torch.Tensor:
    """Sample std of the scored rewards of each group, [P]; 0 for fewer than two."""
    _expect_groups(rewards_PG)
    centred_PG = group_mean(rewards_PG)
    scored_P = (~rewards_PG.isnan()).sum(1)
    return (centred_PG.square().sum(1) / (scored_P - 1).clamp(min=1)).sqrt()


GROUPED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "group_mean": group_mean,
    "group_mean_std": group_mean_std,
    "leave_one_out": leave_one_out,
}
"""Baselines that compare the completions of one prompt; they need at least two."""


def to_go(rewards_N: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """Sum of an answer's rewards from each token to its end, [N] (REINFORCE++, eq. 6)."""
    answers = rewards_N.split(list(lengths))
    return torch.cat([rewards_N[:0], *(answer.flip(0).cumsum(0).flip(0) for answer in answers)])


def gae(
    rewards_N: torch.Tensor,
    values_N: torch.Tensor,
    lengths: Sequence[int],
    *,
    gamma: float,
    lam: float,
) -> torch.Tensor:
    """Generalised advantage estimate of every token, [N] (arXiv 1506.02438, equation 16).

        d_t = r_t + gamma V_{t+1} - V_t        A_t = d_t + gamma lam A_{t+1}

    `values_N` are the critic's values *before* each token; the value after an answer's last token
    is 0. lam 0 is the one-step error, lam 1 the return less the value.
    """
    if not lengths:
        return torch.zeros_like(rewards_N)
    # all answers side by side, aligned at their ends, so that one pass backwards serves all
    rewards_BT, values_BT = (
        pad_sequence([answer.flip(0) for answer in whole.split(list(lengths))], batch_first=True)
        for whole in (rewards_N, values_N)
    )
    after_BT = torch.cat([torch.zeros_like(values_BT[:, :1]), values_BT[:, :-1]], 1)
    errors_BT = rewards_BT + gamma * after_BT - values_BT
    running_B = torch.zeros_like(errors_BT[:, 0])
    columns = []
    for error_B in errors_BT.unbind(1):
        running_B = error_B + gamma * lam * running_B
        columns.append(running_B)
    advantage_BT = torch.stack(columns, 1)
    return torch.cat([row[:n].flip(0) for row, n in zip(advantage_BT, lengths, strict=True)])


def normalized(advantage_N: torch.Tensor) -> torch.Tensor:
    """(advantage - mean) / (std + 1e-4) over everything given: the whole batch's tokens, [N]."""
    if len(advantage_N) < 2:
        return torch.zeros_like(advantage_N)
    return (advantage_N - advantage_N.mean()) / (advantage_N.std() + STD_EPSILON)


def _expect_groups(rewards_PG: torch.Tensor) -> None:
    if rewards_PG.dim() != 2 or not rewards_PG.is_floating_point():
        raise ValueError(
            f"rewards must be float [prompts, completions], got {rewards_PG.dtype} "
            f"of shape {tuple(rewards_PG.shape)}"
        )
