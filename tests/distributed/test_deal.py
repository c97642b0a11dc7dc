"""Who takes which part of a step."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from strop.distributed.deal import dealt, share_of


def test_the_largest_go_first_to_who_has_least() -> None:
    assert dealt([5, 9, 4], 2) == [[1], [0, 2]]
    # 7 and 7 apart; 6 to the first of equals, 5 to the other, 5 to who then has 12
    assert dealt([7, 7, 6, 5, 5], 2) == [[0, 2], [1, 3, 4]]
    assert dealt([3], 3) == [[0], [], []]


@given(st.lists(st.integers(0, 500), max_size=40), st.integers(1, 8))
def test_everything_is_dealt_once_and_nearly_evenly(sizes: list[int], processes: int) -> None:
    parts = dealt(sizes, processes)
    assert sorted(i for part in parts for i in part) == list(range(len(sizes)))
    assert all(part == sorted(part) for part in parts)
    held = [sum(sizes[i] for i in part) for part in parts]
    # whoever has most got its last item when it had least
    assert max(held) - min(held) <= max(sizes, default=0)


@given(st.integers(0, 100), st.integers(1, 9))
def test_equal_shares_end_to_end_are_the_whole(count: int, processes: int) -> None:
    parts = [share_of(count, rank, processes) for rank in range(processes)]
    assert [i for part in parts for i in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
