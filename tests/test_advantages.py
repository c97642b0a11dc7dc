from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from strop.advantages import (
    GROUPED,
    gae,
    group_mean,
    group_mean_std,
    group_std,
    leave_one_out,
    normalized,
    to_go,
)

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
    for function in GROUPED.values():
        assert function(rewards).sum(1).abs().max() < 1e-4
        assert torch.allclose(function(rewards + 3), function(rewards), atol=1e-3)
    assert torch.allclose(group_mean_std(rewards * 10), group_mean_std(rewards), atol=1e-2)
    assert math.isclose(float(group_std(rewards)[0]), float(rewards[0].std()), rel_tol=1e-5)


@pytest.mark.parametrize("function", [*GROUPED.values(), group_std])
def test_refuses_other_shapes(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="prompts, completions"):
        function(torch.zeros(3))
    with pytest.raises(ValueError, match="float"):
        function(torch.zeros(2, 3, dtype=torch.long))


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


class TestLeaveOneOut:
    def test_by_hand(self) -> None:
        """1 - (0 + 2) / 2, 0 - (1 + 2) / 2, 2 - (1 + 0) / 2."""
        assert leave_one_out(torch.tensor([[1.0, 0.0, 2.0]])).tolist() == [[0.0, -1.5, 1.5]]

    def test_unscored_is_not_one_of_the_others(self) -> None:
        rewards = torch.tensor([[1.0, NAN, 0.0, 2.0], [3.0, NAN, NAN, 1.0]])
        expected = [[0.0, 0.0, -1.5, 1.5], [2.0, 0.0, 0.0, -2.0]]
        assert leave_one_out(rewards).tolist() == expected

    def test_one_or_no_scored_completion_gives_zero(self) -> None:
        rewards = torch.tensor([[NAN, 5.0, NAN], [NAN, NAN, NAN]])
        assert leave_one_out(rewards).tolist() == [[0.0] * 3, [0.0] * 3]

    @pytest.mark.parametrize("scored", [2, 3, 7])
    def test_is_group_mean_times_n_over_n_less_one(self, scored: int) -> None:
        """To the last digits of float64: n / (n - 1) is not a single-precision number."""
        generator = torch.Generator().manual_seed(scored)
        rewards = torch.rand(4, 7, generator=generator, dtype=torch.float64)
        rewards[:, scored:] = NAN
        expected = group_mean(rewards) * scored / (scored - 1)
        assert leave_one_out(rewards).dtype == torch.float64
        assert torch.allclose(leave_one_out(rewards), expected, rtol=1e-14, atol=1e-15)
        assert float(expected.abs().max()) > 0.1


class TestToGo:
    def test_by_hand(self) -> None:
        """An answer of three tokens, one of one, one of two: nothing flows from one to the next."""
        rewards = vector(1, 0.5, -2, 7, 0.25, 4)
        assert to_go(rewards, [3, 1, 2]).tolist() == [-0.5, -1.5, -2, 7, 4.25, 4]

    def test_a_reward_at_the_end_is_everyones(self) -> None:
        assert to_go(vector(0, 0, 3), [3]).tolist() == [3, 3, 3]


class TestGae:
    REWARDS = vector(1.0, -0.5, 2.0)
    VALUES = vector(0.3, 0.8, -0.4)

    def test_by_hand(self) -> None:
        """Errors: 1 + 0.9 x 0.8 - 0.3, -0.5 + 0.9 x -0.4 - 0.8, 2 - -0.4; decay 0.9 x 0.5."""
        d = [1.42, -1.66, 2.4]
        expected = [d[0] + 0.45 * (d[1] + 0.45 * d[2]), d[1] + 0.45 * d[2], d[2]]
        found = gae(self.REWARDS, self.VALUES, [3], gamma=0.9, lam=0.5)
        assert found.tolist() == pytest.approx(expected)

    def test_lam_0_is_the_one_step_error(self) -> None:
        found = gae(self.REWARDS, self.VALUES, [3], gamma=0.9, lam=0.0)
        assert found.tolist() == pytest.approx([1.42, -1.66, 2.4])

    def test_lam_1_is_the_return_less_the_value(self) -> None:
        returns = [1 - 0.9 * 0.5 + 0.81 * 2, -0.5 + 0.9 * 2, 2]
        found = gae(self.REWARDS, self.VALUES, [3], gamma=0.9, lam=1.0)
        assert (found + self.VALUES).tolist() == pytest.approx(returns)
        undiscounted = gae(self.REWARDS, self.VALUES, [3], gamma=1.0, lam=1.0)
        assert torch.allclose(undiscounted, to_go(self.REWARDS, [3]) - self.VALUES)

    def test_answers_do_not_leak_into_each_other(self) -> None:
        """Neither the next answer's values nor its advantages are seen at an answer's end."""
        alone = gae(self.REWARDS, self.VALUES, [3], gamma=0.9, lam=0.95)
        huge = vector(1e6, -1e6)
        rewards = torch.cat([huge, self.REWARDS, huge[:1]])
        values = torch.cat([-huge, self.VALUES, huge[1:]])
        together = gae(rewards, values, [2, 3, 1], gamma=0.9, lam=0.95)
        assert together[2:5].tolist() == alone.tolist()
        assert together[5:].tolist() == [2e6]


class TestNormalized:
    def test_by_hand(self) -> None:
        """Mean 2, sample std 2."""
        expected = [-2 / 2.0001, 0.0, 2 / 2.0001]
        assert normalized(vector(0, 2, 4)).tolist() == pytest.approx(expected)

    def test_mean_0_std_1_in_the_same_order(self) -> None:
        draws = torch.randn(50, generator=torch.Generator().manual_seed(0)) * 7 + 3
        found = normalized(draws)
        assert abs(float(found.mean())) < 1e-6
        assert float(found.std()) == pytest.approx(1.0, rel=1e-4)
        assert found.argsort().tolist() == draws.argsort().tolist()

    def test_constant_and_single_inputs_give_zero(self) -> None:
        assert normalized(torch.full((9,), 0.7)).abs().max() < 2e-3  # rounding over the epsilon
        assert normalized(torch.full((8,), 0.5)).tolist() == [0.0] * 8
        assert normalized(vector(5.0)).tolist() == [0.0]
        assert normalized(vector()).tolist() == []
