"""Rows times the matrices of their prompts."""

from __future__ import annotations

import pytest
import torch

from strop.model.keys import Members


@pytest.mark.parametrize("rows", [24, 17, 5, 1])
def test_every_row_meets_its_own_prompt(rows: int) -> None:
    """Of three prompts with eight rows each some rows are left, in any order; of what is multiplied
    a part is taken, as attention does. Against one product at a time."""
    torch.manual_seed(rows)
    left = torch.randperm(24)[:rows] // 8 if rows < 24 else torch.arange(24) // 8
    group_R = torch.unique(left, return_inverse=True)[1]
    groups, heads, shared = int(group_R.max()) + 1, 2, 3
    members = Members(group_R, groups)
    assert members.in_place == (rows in (1, 24))
    x_RKSA = torch.randn(rows, heads, shared, 9, dtype=torch.float64)[..., :7]
    matrix_PKAB = torch.randn(groups, heads, 7, 4, dtype=torch.float64)
    found = members.times(x_RKSA, matrix_PKAB)
    assert found.shape == (rows, heads, shared, 4)
    for row in range(rows):
        for head in range(heads):
            alone = x_RKSA[row, head] @ matrix_PKAB[group_R[row], head]
            assert (found[row, head] - alone).abs().max() < 1e-12
