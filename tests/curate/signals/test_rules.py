"""What a named value means."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from strop.curate.signals.interaction import Signal, mark
from strop.curate.signals.join import latest
from strop.curate.signals.rules import Numbers, Rules, folded, meaning
from strop.curate.signals.sources.values import time_of
from strop.types import Origin

HERE = Origin("export.jsonl", 1)


def read(name: str, value: Any, label: str | None = None, **given: Any) -> Any:
    """(kind, value) of a mark, or `None`; `beside` are other numbers under its name."""
    numbers = Numbers()
    for seen in (*given.pop("beside", (0,)), value):
        if isinstance(seen, int | float) and not isinstance(seen, bool):
            numbers.see(seen)
    found = meaning(mark(name, value, HERE, label=label), Rules(**given), {name: numbers})
    return None if found is None else (found.kind, found.value)


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("user_feedback", True, ("thumb", True)),
        ("User-Feedback", 1, ("thumb", True)),
        ("thumbs", 0, ("thumb", False)),
        ("thumbs", -1, ("thumb", False)),
        ("thumbs", "Thumbs Down", ("thumb", False)),
        ("thumbs", "👍", ("thumb", True)),
        ("csat", "satisfied", ("thumb", True)),
        ("correctness", "correct", ("verdict", True)),
        ("is_correct", 0, ("verdict", False)),
        ("passed", False, ("verdict", False)),
        ("correctness", 0.7, ("score", 0.7)),
        ("relevance", 0.7, ("score", 0.7)),
        ("relevance", 1, ("score", 1.0)),
        ("thumbs", 0.5, ("score", 0.5)),
        ("hallucination", True, ("mark", True)),
        ("tone", "formal", ("mark", None)),
        ("thumbs", "perhaps", ("mark", None)),
        ("relevance", float("nan"), ("mark", pytest.approx(float("nan"), nan_ok=True))),
    ],
)
def test_by_name(name: str, value: Any, meant: tuple[str, Any]) -> None:
    assert read(name, value) == meant


@pytest.mark.parametrize(
    ("value", "highest", "meant"),
    [
        (1, 1, ("thumb", True)),
        (1, 5, ("thumb", False)),
        (2, 5, ("thumb", False)),
        (3, 5, None),
        (4, 5, ("thumb", True)),
        (4.5, 5, ("thumb", True)),
        (9, 10, ("score", 9.0)),
        (1, 10, ("score", 1.0)),
    ],
)
def test_stars_are_known_by_the_highest_of_them(
    value: float, highest: float, meant: tuple[str, Any] | None
) -> None:
    """One is a thumb up beside zeros, and the worst of five stars beside fives."""
    assert read("rating", value, beside=(0 if highest == 1 else 1, highest)) == meant


def test_a_one_alone_may_be_the_worst_of_five_stars() -> None:
    assert read("rating", 1, beside=()) is None
    assert read("thumbs", 1, beside=()) == ("thumb", True)
    assert read("rating", 1, beside=(-1,)) == ("thumb", True)


def test_a_graded_verdict_is_a_score_to_its_last_value() -> None:
    assert read("correctness", 1.0, beside=(0.9, 0.5)) == ("score", 1.0)
    assert read("correctness", 0.9, beside=(1.0,)) == ("score", 0.9)
    assert read("correctness", 1, beside=(2, 5, 0)) == ("score", 1.0)
    assert read("correctness", 1.0, beside=(0,)) == ("verdict", True)
    assert read("correctness", -1, beside=(1,)) == ("verdict", False)


@pytest.mark.parametrize("word", ["No", "NO", "N", "Down", "-1"])
def test_short_words_are_read_like_long_ones(word: str) -> None:
    assert read("feedback", word, word) == ("thumb", False)
    assert read("feedback", "Up", "Up") == read("feedback", "YES", "YES") == ("thumb", True)


def test_a_label_says_more_than_its_number() -> None:
    assert read("user_feedback", 1.0, "thumbs_down") == ("thumb", False)
    assert read("user_feedback", 0.0, "some words") == ("thumb", False)


def test_names_that_a_person_gives() -> None:
    assert read("hallucination", True, thumbs=("hallucination",)) == ("thumb", True)
    assert read("unit tests", 1, verdicts=("unit tests",)) == ("verdict", True)
    assert folded(" User Feedback") == folded("user-feedback") == "user_feedback"
    assert folded("+1") == "+1"


def test_times_of_every_unit() -> None:
    ten = datetime(2026, 1, 5, 10, tzinfo=UTC)
    seconds = 1767607200
    same = (seconds, float(seconds), seconds * 1000, seconds * 10**6, seconds * 10**9,
            str(seconds * 10**9), "2026-01-05T10:00:00Z", "2026-01-05 11:00:00+01:00",
            "2026-01-05T10:00:00", ten)  # fmt: skip
    assert {time_of(value) for value in same} == {ten}
    for value in (None, "yesterday", True, -5, 0, float("nan"), 1e30, [], ""):
        assert time_of(value) is None


def test_the_latest_signal_counts_or_none() -> None:
    def thumb(value: bool, hour: int | None) -> Signal:
        time = None if hour is None else datetime(2026, 1, 5, hour, tzinfo=UTC)
        return Signal("thumb", "t", value, HERE, time=time)

    up, down, late = thumb(True, 9), thumb(False, 9), thumb(False, 10)
    assert latest([late, up]) is late
    assert latest([up, down]) is None
    assert latest([thumb(True, None), late]) is None
    assert latest([thumb(True, None), up]) is up
