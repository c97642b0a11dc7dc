"""Every blending formula on numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from strop.model.blend.formulas import (
    dare,
    dare_ties,
    dropped,
    elected,
    linear,
    slerp,
    soup,
    task_arithmetic,
    ties,
    trimmed,
)
from strop.model.blend.trim import threshold

A = torch.tensor([1.0, -2.0, 4.0])
B = torch.tensor([3.0, 2.0, 0.0])
C = torch.tensor([2.0, 6.0, 2.0])


def close(found: torch.Tensor, *values: float) -> None:
    torch.testing.assert_close(found, torch.tensor(values))


def drawing(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_soup_is_the_mean() -> None:
    close(soup([A, B, C]), 2.0, 2.0, 2.0)


def test_linear_is_a_weighted_sum_and_may_go_beyond_its_ends() -> None:
    close(linear([A, B], [0.25, 0.75]), 2.5, 1.0, 1.0)
    close(linear([A, B], [1.5, -0.5]), 0.0, -4.0, 6.0)


def test_a_model_without_weight_may_hold_anything() -> None:
    broken = torch.full((3,), math.nan)
    assert torch.equal(linear([A, broken], [1.0, 0.0]), A)


def test_slerp_keeps_the_length_where_the_line_cuts_the_corner() -> None:
    x, y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    half = math.sqrt(0.5)
    close(slerp(x, y, 0.5), half, half)
    close(linear([x, y], [0.5, 0.5]), 0.5, 0.5)
    # a third of a right angle is 30 degrees
    close(slerp(x, y, 1 / 3), math.cos(math.pi / 6), 0.5)
    # of different lengths: sin(45)/sin(90) of each
    close(slerp(2 * x, 6 * y, 0.5), 2 * half, 6 * half)


def test_slerp_has_its_ends_and_is_a_line_where_there_is_no_angle() -> None:
    assert torch.equal(slerp(A, B, 0.0), A)
    assert torch.equal(slerp(A, B, 1.0), B)
    close(slerp(A, 3 * A, 0.5), 2.0, -4.0, 8.0)
    close(slerp(A, -A, 0.25), 0.5, -1.0, 2.0)
    close(slerp(torch.zeros(3), B, 0.5), 1.5, 1.0, 0.0)


def test_task_arithmetic_adds_and_takes_away() -> None:
    base = torch.tensor([1.0, 1.0, 1.0])
    close(task_arithmetic(base, [A, B], [1.0, 0.5]), 3.5, 0.0, 5.0)
    close(task_arithmetic(base, [A], [-1.0]), 0.0, 3.0, -3.0)


def test_trimming_keeps_what_is_at_least_as_large() -> None:
    close(trimmed(A, 2.0), 0.0, -2.0, 4.0)


def test_election_is_the_mean_of_those_with_the_sign_of_the_sum() -> None:
    one = torch.tensor([3.0, -1.0, 2.0, 0.0, 1.0])
    two = torch.tensor([-1.0, -3.0, 4.0, 0.0, -1.0])
    three = torch.tensor([1.0, 2.0, 0.0, 0.0, 0.0])
    # sums: 3 (mean of 3 and 1), -2 (mean of -1 and -3), 6 (a zero has no say), 0, 0 (they cancel)
    close(elected([one, two, three]), 2.0, -2.0, 3.0, 0.0, 0.0)


def test_ties_step_by_step() -> None:
    base = torch.tensor([10.0, 10.0, 10.0, 10.0])
    one = torch.tensor([0.9, -0.2, 0.5, 0.1])
    two = torch.tensor([-0.4, -0.6, 0.7, 0.3])
    # trimmed at 0.5 and 0.4: [0.9, 0, 0.5, 0] and [-0.4, -0.6, 0.7, 0]
    # signs of the sums: +, -, +, 0; means of those that agree: 0.9, -0.6, 0.6, 0
    close(ties(base, [one, two], [1.0, 1.0], [0.5, 0.4]), 10.9, 9.4, 10.6, 10.0)
    close(ties(base, [one, two], [0.5, 0.5], [0.5, 0.4]), 10.45, 9.7, 10.3, 10.0)


def test_a_scale_of_its_own_gives_a_task_more_of_a_say() -> None:
    base, one, two = torch.zeros(1), torch.tensor([1.0]), torch.tensor([-0.6])
    close(ties(base, [one, two], [1.0, 1.0], [0.0, 0.0]), 1.0)
    close(ties(base, [one, two], [0.5, 1.0], [0.0, 0.0]), -0.6)


def test_dropping_keeps_the_expected_value() -> None:
    vector = torch.ones(200_000)
    kept = dropped(vector, 0.9, drawing(0))
    assert kept.unique().tolist() == pytest.approx([0.0, 10.0])
    # the standard error of the mean is 3 / sqrt(200,000) = 0.0067
    assert float(kept.mean()) == pytest.approx(1.0, abs=0.03)
    assert torch.equal(dropped(vector, 0.0, drawing(0)), vector)


def test_dare_is_task_arithmetic_on_what_was_kept() -> None:
    base, one, two = torch.zeros(1000), torch.full((1000,), 1.0), torch.full((1000,), -4.0)
    found = dare(base, [one, two], [1.0, 0.5], 0.5, [drawing(1), drawing(2)])
    first, second = (torch.rand(1000, generator=drawing(seed)) >= 0.5 for seed in (1, 2))
    wanted = 2.0 * first - 4.0 * second  # 1 / 0.5, and 0.5 * -4 / 0.5
    assert torch.equal(found, wanted)
    assert len(wanted.unique()) == 4


def test_dare_ties_elects_among_what_was_kept() -> None:
    base, one, two = torch.zeros(1000), torch.full((1000,), 1.0), torch.full((1000,), -4.0)
    found = dare_ties(base, [one, two], [1.0, 1.0], 0.5, [drawing(1), drawing(2)])
    first, second = (torch.rand(1000, generator=drawing(seed)) >= 0.5 for seed in (1, 2))
    # where both were kept the larger one wins alone; where one was kept it stands undisturbed
    wanted = torch.where(second, -8.0, torch.where(first, 2.0, 0.0))
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("share", [1e-9, 0.001, 0.2, 0.5, 1.0])
def test_the_threshold_is_that_of_a_sort_of_everything(share: float) -> None:
    draw = drawing(3)
    parts = [torch.randn(50, 40, generator=draw) * 10.0**power for power in (-6, -3, 0)]
    parts.append(torch.zeros(500))
    together = torch.cat([part.flatten() for part in parts]).abs()
    count = max(1, math.ceil(share * together.numel()))
    wanted = together.sort(descending=True).values[count - 1]
    assert threshold(lambda: parts, share) == float(wanted)
