from __future__ import annotations

import pytest

from strop.text.language import known_languages, language_of, prose, written_in

GERMAN = "Wo ist denn hier der Bahnhof, bitte?"


def test_the_likeliest_language_and_its_probability() -> None:
    assert language_of(GERMAN) == "de"
    in_german, in_english = written_in(GERMAN, ["de"]), written_in(GERMAN, ["en"])
    assert in_german is not None
    assert in_english is not None
    assert in_german > 0.9 > 0.1 > in_english
    assert written_in(GERMAN, known_languages()) == pytest.approx(1.0, abs=1e-4)


def test_too_few_letters_tell_nothing() -> None:
    assert language_of("Bahnhof") is None
    assert written_in("12345 67890 12345 67890", ["en"]) is None
    assert language_of("Bahnhof", shortest=5) is not None


def test_prose_is_what_is_no_code_formula_or_tag() -> None:
    assert prose("Look: `x = 1` and $a+b$ <b>bold</b>\n```\ncode\n``` 42 \\frac end") == (
        "Look and bold end"
    )
