from __future__ import annotations

import math

import pytest
import torch

from strop.advantages import group_mean, group_mean_std, group_std

NAN = float("nan")


def test_group_mean_by_hand() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.5], [2.0, 2.0, 2.0]])
    assert group_mean(rewards).tolist() == [[0.5, -0.5, 0.0], [0.0, 0.0, 0.0]]


def test_group_mean_std_by_hand() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.5]])
    expected = [0.5 / 0.5001, -0.5 / 0.5001, 0.0]
    assert group_mean_std(rewards)[0].tolist() == pytest.approx(expected)


def test_unscored_is_not_zero() -> None:
    """An unscored completion leaves mean and std as if it had never been sampled."""
    with_hole = torch.tensor([[1.0, NAN, 0.0, 0.5]])
    without = torch.tensor([[1.0, 0.0, 0.5]])
    advantages = group_mean_std(with_hole)[0]
    assert advantages[1] == 0.0
    assert advantages[[0, 2, 3]].tolist() == pytest.approx(group_mean_std(without)[0].tolist())
    as_zero = group_mean_std(torch.tensor([[1.0, 0.0, 0.0, 0.5]]))[0]
    assert not torch.allclose(advantages, as_zero)


def test_one_or_no_scored_completion_gives_zero() -> None:
    rewards = torch.tensor([[NAN, 1.0, NAN], [NAN, NAN, NAN]])
    assert group_mean_std(rewards).tolist() == [[0.0] * 3, [0.0] * 3]
    assert group_std(rewards).tolist() == [0.0, 0.0]


def test_equal_rewards_carry_no_advantage() -> None:
    assert group_mean_std(torch.full((2, 8), 0.7)).abs().max() < 1e-3


def test_advantages_of_a_group_sum_to_zero_and_ignore_shift_and_scale() -> None:
    rewards = torch.rand(5, 8, generator=torch.Generator().manual_seed(0))
    for function in (group_mean, group_mean_std):
        assert function(rewards).sum(1).abs().max() < 1e-4
        assert torch.allclose(function(rewards + 3), function(rewards), atol=1e-3)
    assert torch.allclose(group_mean_std(rewards * 10), group_mean_std(rewards), atol=1e-2)
    assert math.isclose(float(group_std(rewards)[0]), float(rewards[0].std()), rel_tol=1e-5)


def test_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match="prompts, completions"):
        group_mean(torch.zeros(3))
