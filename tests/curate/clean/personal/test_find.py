"""All recognisers together: overlaps, and time that grows with the text and no faster."""

from __future__ import annotations

import random
import string
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.curate.clean.personal.find import find
from strop.curate.clean.personal.spans import Span, settle

ALPHABET = st.sampled_from(
    [*"aB1 .,:@/-+()=\n'\"\ud800é中", "http://", "www.", "4111", "password="]
)


@given(st.lists(ALPHABET, max_size=60).map("".join))
def test_spans_lie_in_the_text_in_order_without_overlap(text: str) -> None:
    spans = find(text)
    assert all(0 <= span.start < span.end <= len(text) for span in spans)
    assert all(one.end <= two.start for one, two in pairwise(spans))


def test_the_longest_wins_then_the_most_specific() -> None:
    long, inside = Span("phone", 0, 10), Span("card", 2, 8)
    assert settle([inside, long], 12) == [long]
    assert settle([Span("phone", 2, 8), inside], 12) == [inside]
    assert settle([Span("ip", 9, 12), long, Span("ip", 10, 12)], 12) == [long, Span("ip", 10, 12)]


def test_more_recognisers_can_be_given() -> None:
    def names(text: str) -> list[Span]:
        at = text.find("Ann")
        return [Span("person", at, at + 3)] if at >= 0 else []

    assert find("Ann, a@b.org", others=[names]) == [Span("person", 0, 3), Span("email", 5, 12)]
    assert find("Ann, a@b.org", kinds=["email"], others=[names]) == [Span("email", 5, 12)]


HOSTILE = (
    " ", "7", ".", "a@", "a@a.", "1 ", "12-", "1.", "AA00 ", "+1 ", "+49 30 9", ":", "ab::", "(",
    "http://", "www.", "a.com/", "http://a.b/(", "[x](http://a.b/c)", "password=", "password=1a",
    "eyJaaaaaaaa.", "-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----\nMIIE", "sk-",
    "xoxb-12345678-", "bearer abcdefgh12345678", "call 4155550132 ", "4111111111111111 ",
    "111111111 ssn ", "0049 ", "(0) ", "1:2:3:4:5:6:7:8:", "://a:bcd", "12:34:",
)  # fmt: skip


@pytest.mark.parametrize("pattern", HOSTILE)
def test_time_grows_with_the_length_and_no_faster(pattern: str) -> None:
    """Eight times the text may take sixteen times the time, not sixty-four."""
    small, large = (seconds(pattern, length) for length in (2_000, 16_000))
    assert large < 16 * small + 0.02, (small, large)


def seconds(pattern: str, length: int) -> float:
    """Processor time of the quickest of three runs."""
    text = (pattern * (length // len(pattern) + 1))[:length]
    times = []
    for _ in range(3):
        before = time.process_time()
        find(text)
        times.append(time.process_time() - before)
    return min(times)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", HOSTILE)
def test_a_million_characters(pattern: str) -> None:
    assert seconds(pattern, 1_000_000) < 30


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_long_secret_is_found_to_its_end(quote: str) -> None:
    draw = random.Random(0)
    value = "".join(draw.choices(string.ascii_letters + string.digits, k=750))
    text = f"api_key = {quote}{value}{quote} and more"
    assert find(text) == [Span("secret", text.index(value), text.index(value) + len(value))]
    assert find(f"api_key = {value[:40]} and more")[0].end == 50
