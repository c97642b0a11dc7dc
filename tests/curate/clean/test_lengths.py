from __future__ import annotations

import pytest

from strop.curate.clean.faults import Fault
from strop.curate.clean.lengths import LengthLimits, out_of_length
from strop.errors import UsageError


class Halves:
    """A tokenizer of two characters a token."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return list(range((len(text) + 1) // 2 + 2 * add_special_tokens))


def test_both_limits_are_allowed_lengths() -> None:
    words = LengthLimits("words", least=2, most=4)
    assert out_of_length("one", words) == Fault("too_short", "1 words, fewer than 2")
    assert [out_of_length("w " * count, words) for count in (2, 3, 4)] == [None] * 3
    assert out_of_length("w " * 5, words) == Fault("too_long", "5 words, more than 4")


def test_characters_and_tokens_without_special_ones() -> None:
    assert out_of_length("abcdef", LengthLimits("characters", most=5)) == Fault(
        "too_long", "6 characters, more than 5"
    )
    assert out_of_length("abcdef", LengthLimits("tokens", most=3), Halves()) is None
    assert out_of_length("abcdef", LengthLimits("tokens", least=4), Halves()) == Fault(
        "too_short", "3 tokens, fewer than 4"
    )


def test_limits_that_leave_nothing_and_tokens_without_a_tokenizer_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 5 and at most 4 words"):
        LengthLimits("words", least=5, most=4)
    with pytest.raises(UsageError, match="needs a tokenizer"):
        out_of_length("abc", LengthLimits("tokens", most=3))
