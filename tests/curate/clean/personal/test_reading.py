"""What a person reads, and where each of its signs is written."""

from __future__ import annotations

import time

import pytest

from strop.curate.clean.personal.find import find
from strop.curate.clean.personal.reading import Reading, is_read_otherwise
from strop.curate.clean.personal.spans import Span


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("a\u200bb\ufeffc", "abc"),
        ("\uff21\uff0b\uff19\uff0e\uff5a\uff20\uff3f\uff0d", "A+9.z@_-"),
        ("a%40b&#64;c&#0064;d&#x40;e&commat;f", "a@b@c@d@e@f"),
        ("\uff0c\uff1a。100%41 &#65; &amp;", "\uff0c\uff1a。100%41 &#65; &amp;"),
    ],
)
def test_what_is_read(written: str, read: str) -> None:
    assert Reading(written).text == read
    assert is_read_otherwise(written) == (written != read)


def test_each_sign_is_found_in_the_original() -> None:
    written = "x\u200b\u200by%40\uff21z\u200b"
    reading = Reading(written)
    spans = [Span("email", place, place + 1) for place in range(len(reading.text))]
    signs = [written[one.start : one.end] for one in reading.originals(spans)]
    assert signs == ["x", "y", "%40", "\uff21", "z"]
    (whole,) = reading.originals([Span("email", 0, 5)])
    assert written[whole.start : whole.end] == "x\u200b\u200by%40\uff21z"


def test_reading_takes_time_that_grows_with_the_length() -> None:
    def seconds(count: int) -> float:
        text = "ab\u200bc %40 \uff44&#64;" * count
        start = time.perf_counter()
        find(text)
        return time.perf_counter() - start

    seconds(1000)
    assert seconds(16_000) < 16 * 5 * max(seconds(1000), 1e-3)
