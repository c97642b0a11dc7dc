"""Sequences whose items are made on demand answer as tuples of the same items do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from strop.text.lazy import Chained, Chosen

MADE: list[tuple[Sequence[int], tuple[int, ...]]] = [
    (Chained([(4, 5), (), (6,), [7, 8]]), (4, 5, 6, 7, 8)),
    (Chained([]), ()),
    (Chosen((4, 5, 6, 7), [3, 0, 3]), (7, 4, 7)),
    (Chosen(Chained([(4, 5), (6,)]), np.array([2, 1])), (6, 5)),
]


@pytest.mark.parametrize(("lazy", "held"), MADE)
def test_as_a_tuple(lazy: Sequence[int], held: tuple[int, ...]) -> None:
    assert len(lazy) == len(held)
    assert tuple(lazy) == held
    assert tuple(reversed(lazy)) == held[::-1]
    for index in range(-len(held), len(held)):
        assert lazy[index] == held[index]
        assert lazy[np.int64(index)] == held[index]
    for part in (slice(3), slice(1, None), slice(None, None, -2), slice(-2, 99)):
        assert lazy[part] == held[part]


@pytest.mark.parametrize(("lazy", "held"), MADE)
def test_there_is_nothing_beyond_the_end(lazy: Sequence[int], held: tuple[int, ...]) -> None:
    for index in (len(held), -len(held) - 1):
        with pytest.raises(IndexError):
            lazy[index]
