"""So many messages within so many seconds, and no more, whatever the clock says between."""

from __future__ import annotations

from strop.recipe.notify import AtMost
from strop.tracking.notify.limit import RateLimit


def test_the_window_slides() -> None:
    limit = RateLimit(AtMost(count=2, seconds=10))
    told = {now: limit.allows(now) for now in (0.0, 4.0, 9.9, 10.0, 13.9, 14.0, 20.0)}
    # 0 leaves the window at 10, 4 at 14, 10 at 20
    assert told == {0.0: True, 4.0: True, 9.9: False, 10.0: True, 13.9: False, 14.0: True,
                    20.0: True}  # fmt: skip


def test_what_was_swallowed_is_counted_once() -> None:
    limit = RateLimit(AtMost(count=1, seconds=10))
    assert [limit.allows(now) for now in (0.0, 1.0, 2.0)] == [True, False, False]
    assert limit.taken_back() == 2
    assert limit.taken_back() == 0


def test_what_an_earlier_process_sent_counts_in_whatever_order_it_stands() -> None:
    limit = RateLimit(AtMost(count=2, seconds=10), [8.0, 1.0])
    assert not limit.allows(9.0)
    assert limit.allows(11.0)  # that of 1 has left the window
    assert not limit.allows(12.0)


def test_without_a_limit_everything_is_told() -> None:
    limit = RateLimit(None)
    assert all(limit.allows(0.0) for _ in range(100))
