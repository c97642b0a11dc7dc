"""Which answers become records."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.curate.synthetic.selection import (
    above,
    best,
    diverse,
    first_of_equals,
    rouge_l,
    shortest,
)

WORDS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=9).map(tuple)


def common(left: tuple[str, ...], right: tuple[str, ...]) -> int:
    """The longest common subsequence, by its definition."""
    if not left or not right:
        return 0
    if left[0] == right[0]:
        return 1 + common(left[1:], right[1:])
    return max(common(left[1:], right), common(left, right[1:]))


class TestRougeL:
    def test_by_hand(self) -> None:
        assert rouge_l(("a", "b", "c", "d"), ("a", "b", "d")) == pytest.approx(6 / 7)
        assert rouge_l(("a", "b"), ("b", "a")) == pytest.approx(0.5)
        assert rouge_l(("a",), ("b",)) == 0

    @given(WORDS, WORDS)
    def test_is_the_f1_of_the_longest_common_subsequence(
        self, left: tuple[str, ...], right: tuple[str, ...]
    ) -> None:
        shared = common(left, right)
        precision, recall = shared / len(left), shared / len(right)
        expected = 2 * precision * recall / (precision + recall) if shared else 0.0
        assert rouge_l(left, right) == pytest.approx(expected)


def test_best_and_above() -> None:
    scores = [0.2, 0.9, 0.5, 0.9, 0.7]
    assert best(scores) == 1
    texts = ["a", "b", "c", "b\n", "d"]
    assert above(texts, scores, 0.5) == [1, 4, 2]  # the fourth repeats the second
    assert above(texts, scores, 0.7) == [1, 4]  # the threshold itself is enough
    assert above(texts, scores, 1.0) == []


def test_repeats_are_told_by_everything_but_spaces() -> None:
    assert first_of_equals(["x = 3", "x  =\n3", "X = 3", "x=3"]) == [0, 2, 3]


def test_shortest() -> None:
    assert shortest(["one two three", "b", "a", "one two"], 3) == [1, 2, 3]


def test_diverse_takes_what_is_unlike_all_that_is_taken() -> None:
    texts = [
        "add three and four to get seven",
        "add three and four and get seven",
        "count on from four by three",
        "add four and three to get seven in all",
    ]
    assert shortest(texts, 1) == [2]
    # the least alike to "count on from four by three" is one of the sums, then its variants
    first, second, third = diverse(texts, 3)
    assert first == 2
    left = [n for n in (0, 1, 3) if n != second]
    words = [tuple(text.split()) for text in texts]
    assert rouge_l(words[second], words[2]) <= min(rouge_l(words[n], words[2]) for n in left)
    nearest = {n: max(rouge_l(words[n], words[2]), rouge_l(words[n], words[second])) for n in left}
    assert third == min(nearest, key=lambda n: (nearest[n], n))
    assert sorted(diverse(texts, 9)) == [0, 1, 2, 3]
    assert diverse([], 2) == []
