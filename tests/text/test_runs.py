"""Cutting a list into runs by size."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.text.runs import runs


def test_by_hand() -> None:
    assert list(runs(["ab", "c", "defgh", "i"], 3)) == [["ab", "c"], ["defgh"], ["i"]]
    assert list(runs([2, 1, 5, 1], 3, size=lambda number: number)) == [[2, 1], [5], [1]]
    assert list(runs([], 3)) == []


@given(st.lists(st.integers(0, 9), max_size=20), st.integers(1, 12))
def test_runs_are_as_long_as_they_may_be(sizes: list[int], most: int) -> None:
    found = list(runs(sizes, most, size=lambda number: number))
    assert [size for run in found for size in run] == sizes
    assert all(sum(run) <= most or len(run) == 1 for run in found)
    assert all(sum(run) + after[0] > most for run, after in pairwise(found))


def test_a_run_is_given_before_the_next_is_looked_at() -> None:
    def endless() -> object:
        yield from ["ab", "cd"]
        pytest.fail("read further than it had to")

    assert next(runs(endless(), 3)) == ["ab"]  # type: ignore[arg-type]
