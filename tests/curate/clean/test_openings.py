from __future__ import annotations

import pytest

from strop.curate.clean.faults import Mended
from strop.curate.clean.openings import disclaimed, refused, without_opening


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("Sure! Cats sleep.", "Cats sleep."),
        ("Certainly! Here is a list of cats:\n\n1. Tom", "1. Tom"),
        ("Certainly, here is the code:\n```\nx = 1\n```", "```\nx = 1\n```"),
        ("Sure, I can help with that: cats sleep.", "Cats sleep."),
        ("Of course! I\u2019d be happy to help. Here are three:\nTom", "Tom"),
        ("That's a great question! Cats sleep.", "Cats sleep."),
        ("Here is the Node.js code:\nlet x", "let x"),
        ("Here's how I would do it at 10:30:\n\nFirst", "First"),
        ("Natürlich! Katzen schlafen.", "Katzen schlafen."),
        ("I'd be happy to help! Cats sleep.", "Cats sleep."),
    ],
)
def test_a_boilerplate_opening_is_cut(text: str, rest: str) -> None:
    assert without_opening(text) == Mended(rest, ("opening",))
    assert without_opening(rest) == Mended(rest, ())


@pytest.mark.parametrize(
    "text",
    [
        "Certainly, cats sleep a lot.",
        "Sure enough, it rained.",
        "Great minds think alike.",
        "Yes, you can.",
        "Here is the thing: cats sleep.",
        "Sure!",
        "Of course.",
        "",
        "Cats sleep. Sure! Here is why:\nthey can.",
        "Absolutely not.",
        "Sure, I can help. I'm sorry, but I can't assist with that.",
    ],
)
def test_what_says_something_or_nothing_else_stays(text: str) -> None:
    assert without_opening(text) == Mended(text, ())


def test_refusals_and_disclaimers_have_their_own_reasons() -> None:
    no = refused("I'm sorry, but I can't assist with that.")
    assert no is not None
    assert no.kind == "refusal"
    assert refused("Cats sleep.") is None
    ai = disclaimed("As an AI language model, I have no feelings, but cats do.")
    assert ai is not None
    assert ai.kind == "disclaimer"
    for text in ("An AI is a program.", "I am an aid worker.", "x" * 400 + " As an AI model, I"):
        assert disclaimed(text) is None
