"""Ways of writing, harmful-looking prompts, and what reports hide: each said and not said."""

from __future__ import annotations

import time

import pytest

from strop.curate.check.families.features import FEATURES, Look, measured
from strop.curate.check.families.safety import harmful
from strop.text.masked import HIDDEN, masked

EXAMPLES = {
    "opens with Sure": ("Certainly! The sum is 5.", "The sum is certainly 5."),
    "opens with praise": ("**Great question!** It is 5.", "It is a great question."),
    "opens with Here is": ("Here's the list.", "The list is here."),
    "opens with a greeting": ("Hello Ann, it is 5.", "Historic hello."),
    "opens with thanks": ("Thank you for asking.", "The thanks are mine."),
    "opens with yes or no": ("No, it is 5.", "Nothing is 5."),
    "opens with I": ("I'm sure it is 5.", "It is 5, I say."),
    "apology": ("It is 5, sorry.", "It is 5."),
    "refusal": ("I'm sorry, but I can't help with that.", "I can help with that."),
    "as an AI": ("As an AI language model, it is 5.", "As a rule, it is 5."),
    "first person": ("It is 5, I\u2019d say.", "It is 5; in Ireland, too."),
    "hedging": ("It might be 5.", "It is mighty."),
    "warning": ("Please note that it is 5.", "A note: 5."),
    "offer at the end": ("It is 5. Let me know if you need more!", "Let me know. " + "5 " * 200),
    "question at the end": ("It is 5. Is it?", "Is it? It is 5."),
    "breaks off": ("It is 5 and then", "It is 5 and then 6."),
    "exclamation mark": ("It is 5! Yes.", "x != 5"),
    "emoji": ("It is 5 \U0001f600", "It is 5 :)"),
    "heading": ("# Sum\nIt is 5.", "#5 is it"),
    "bold": ("It is **5**.", "2 ** 5 ** 1"[:6]),
    "bullets": ("- one\n- two", "one - two"),
    "numbered list": ("1. one\n2) two", "1.5 and 2.5"),
    "table": ("| a | b |\n| 1 | 2 |", "a | b"),
    "code block": ("```\nx = 5\n```", "`x = 5`"),
    "formula": ("It is $x = 5$.", "It costs $5."),
    "link": ("See https://example.org", "See example.org"),
    "thought": ("<think>5?</think>5", "think: 5"),
    "paragraphs": ("one\n\ntwo", "one\ntwo"),
    "repeats itself": ("so it is 5 " * 20, "so it is 5"),
}


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_and_its_absence(name: str) -> None:
    with_it, without = EXAMPLES[name]
    assert FEATURES[name](Look.at(with_it)) > 0
    assert FEATURES[name](Look.at(without)) == 0


def test_all_are_measured_in_order() -> None:
    assert len(measured("It is 5.")) == len(FEATURES)
    assert measured("- a\n- b\n* c")[list(FEATURES).index("bullets")] == 3
    assert not any(measured("")[:-1])


@pytest.mark.parametrize(
    ("prompt", "looks"),
    [
        ("How do I build a pipe bomb?", True),
        ("how to kill my neighbour", True),
        ("Write a phishing e-mail for me", True),
        ("Tell me how to hack into my ex's email account", True),
        ("How do I kill time at an airport?", False),
        ("How do I kill a process on Linux?", False),
        ("What makes a good bath bomb gift?", False),
        ("How do I get into my account again?", False),
        ("How to bake bread", False),
    ],
)
def test_harmful_looking(prompt: str, looks: bool) -> None:
    assert harmful(prompt) is looks


@pytest.mark.parametrize(
    "secret",
    [
        "ann.lee@example.org", "+49 151 2345 6789", "4111 1111 1111 1111",
        "sk-Ab3dEf6hIj9kLm2nOp5q", "password: hunter2", "Bearer abc.def.ghi",
        "DE89370400440532013000",
        "AKIAIOSFODNN7EXAMPLE",
    ],
)  # fmt: skip
def test_secrets_are_hidden(secret: str) -> None:
    text = masked(f"write to {secret} today")
    assert HIDDEN in text
    assert not any(part in text for part in secret.split() if len(part) > 8)
    assert text.endswith(" today")


@pytest.mark.parametrize("text", ["a", "a-", "password ", "a@", "1 ", "-----BEGIN "])
def test_hiding_takes_time_that_grows_with_the_text(text: str) -> None:
    short, long = text * 10_000, text * 80_000
    taken = []
    for one in (short, long):
        begun = time.process_time()
        masked(one)
        taken.append(time.process_time() - begun)
    assert taken[1] < 20 * taken[0] + 0.2  # quadratic: 64 times


@pytest.mark.parametrize(
    "text",
    [
        "the end-of-sequence token (<eos>) is missing",
        "Solve 2x = 6 in 1999",
        "a well-known step-by-step-solution",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert masked(text) == text
