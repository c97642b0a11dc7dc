"""The texts of examples/real: as many as promised, each new, and nothing tested is trained on."""

from __future__ import annotations

import math
import re
from calendar import day_name, month_name
from collections import Counter
from collections.abc import Sequence
from itertools import combinations, permutations

import pytest

from strop.data.duplicates import first_alike, words
from strop.evals.tasks import choice, perplexity
from strop.recipe.suite import ChoiceTask, PerplexityTask
from tests.support import ROOT

TEXTS = ROOT / "examples/real/texts"
EVERYDAY = (TEXTS / "everyday.txt").read_text().splitlines()
NOTICES = (TEXTS / "notices.txt").read_text().splitlines()
KNOWLEDGE = choice.rows_of(
    ChoiceTask(kind="choice", name="knowledge", data=[str(TEXTS / "knowledge.jsonl")])
)
PROSE = [
    str(row.task.prompt)
    for row in perplexity.rows_of(
        PerplexityTask(kind="perplexity", name="prose", data=[str(TEXTS / "prose.jsonl")])
    )
]
FACTS = [f"{row.task.prompt} {row.choices[row.right]}" for row in KNOWLEDGE]
"""Question and answer together: the capitals of two countries are two facts."""
ALL = {"everyday": EVERYDAY, "notices": NOTICES, "facts": FACTS, "prose": PROSE}

TRAINED_PROMPTS, TRAINED_NOTICES = 300, 45
"""Lines from the first on that are for training; those after them are for testing."""
CLOSE = 0.5
"""Likeness from which two texts say much the same."""
APART = 0.3
"""Likeness that no text for testing has to one for training."""
FIELDS = ("name", "date", "amount")


def close(texts: Sequence[str], limit: float = CLOSE) -> list[tuple[int, int]]:
    """Pairs of texts whose words are alike: shared weight over all weight, where a word weighs
    log(texts / texts that hold it). So "What is the difference between" makes nobody alike, and
    the house's own rule, which compares short texts for equality alone, is not enough here."""
    bags = [set(words(text)) for text in texts]
    holders = Counter(word for bag in bags for word in bag)

    def weight(bag: set[str]) -> float:
        return sum(math.log((len(texts) + 1) / holders[word]) for word in bag)

    return [
        (one, two)
        for (one, left), (two, right) in combinations(enumerate(bags), 2)
        if weight(left & right) >= limit * weight(left | right)
    ]


def fields(pattern: str) -> list[str]:
    return re.findall(r"\{(.*?)\}", pattern)


def test_there_are_as_many_as_promised() -> None:
    assert {name: len(texts) for name, texts in ALL.items()} == {
        "everyday": 360, "notices": 60, "facts": 150, "prose": 40,
    }  # fmt: skip


@pytest.mark.parametrize("texts", ALL.values(), ids=ALL)
def test_no_text_repeats_another(texts: list[str]) -> None:
    assert first_alike([words(text) for text in texts]) == list(range(len(texts)))
    assert [(texts[one], texts[two]) for one, two in close(texts)] == []


@pytest.mark.parametrize(
    "again",
    ["How should fresh bread be stored so that it does not go stale by tomorrow?",
     "How should I store fresh bread so it does not go stale?",
     "Please, why do leaves turn red in autumn?",
     "My biscuits spread flat in the oven. What am I doing wrong?"],
)  # fmt: skip
def test_a_prompt_that_was_reworded_is_found(again: str) -> None:
    ((one, two),) = close([*EVERYDAY, again])
    assert one < TRAINED_PROMPTS
    assert two == len(EVERYDAY)


@pytest.mark.parametrize(
    "new",
    ["What is the difference between a hill and a mountain?", "How do I make a simple kite?",
     "Write a short message to thank a plumber."],
)  # fmt: skip
def test_another_question_in_the_same_frame_is_new(new: str) -> None:
    assert close([*EVERYDAY, new]) == []


@pytest.mark.parametrize(
    ("texts", "trained"), [(EVERYDAY, TRAINED_PROMPTS), (NOTICES, TRAINED_NOTICES)],
    ids=["everyday", "notices"],
)  # fmt: skip
def test_what_is_tested_is_far_from_what_is_trained_on(texts: list[str], trained: int) -> None:
    pairs = close(texts, APART)
    assert [(texts[one], texts[two]) for one, two in pairs if one < trained <= two] == []


@pytest.mark.parametrize(
    "far",
    ["How do I store bread so that it is not stale tomorrow?",
     "Tell me why leaves turn red.",
     "I have to decline a wedding invitation. Help me find polite words."],
)  # fmt: skip
def test_a_freer_rewording_is_still_not_far(far: str) -> None:
    assert {one for one, two in close([*EVERYDAY, far], APART) if two == len(EVERYDAY)}


def test_prompts_are_single_lines_of_five_to_twenty_five_words() -> None:
    assert all(prompt == prompt.strip() for prompt in EVERYDAY)
    assert [prompt for prompt in EVERYDAY if not 5 <= len(prompt.split()) <= 25] == []


def test_both_parts_of_the_prompts_hold_questions_and_requests() -> None:
    for part in (EVERYDAY[:TRAINED_PROMPTS], EVERYDAY[TRAINED_PROMPTS:]):
        questions = sum("?" in prompt for prompt in part) / len(part)
        assert 0.6 <= questions <= 0.85


def test_every_question_has_four_choices_and_says_none_of_them() -> None:
    for row in KNOWLEDGE:
        asked = str(row.task.prompt)
        assert re.fullmatch(r"Question: [A-Z][^\n]+\?\nAnswer:", asked), asked
        assert len({answer.lower() for answer in row.choices}) == 4, asked
        assert all(answer == answer.strip() for answer in row.choices), asked
        assert all(len(answer.split()) <= 4 for answer in row.choices), asked
        said = re.sub("^(an?|the) ", "", row.choices[row.right])
        assert not re.search(rf"\b{said}\b", asked.removesuffix("Answer:")), asked


def test_neither_place_nor_length_tells_the_right_answer() -> None:
    places = Counter(row.right for row in KNOWLEDGE)
    assert sorted(places) == [0, 1, 2, 3]
    assert max(places.values()) - min(places.values()) <= 1
    for pick in (max, min):
        picked = [pick(row.choices, key=len) == row.choices[row.right] for row in KNOWLEDGE]
        assert sum(picked) / len(picked) < 0.35


def test_paragraphs_have_80_to_130_words() -> None:
    assert [text for text in PROSE if not 80 <= len(text.split()) <= 130] == []
    assert all(text == " ".join(text.split()) for text in PROSE)


def test_paragraphs_are_not_fillings_of_a_template() -> None:
    runs = Counter(
        run
        for text in map(words, PROSE)
        for run in set(zip(*(text[start:] for start in range(5)), strict=False))
    )
    assert [run for run, holders in runs.items() if holders > 1] == []
    assert len({words(text)[:2] for text in PROSE}) >= 35


@pytest.mark.parametrize("pattern", NOTICES)
def test_a_pattern_holds_every_field_once(pattern: str) -> None:
    assert sorted(fields(pattern)) == sorted(FIELDS)
    filled = pattern.format(name="Ada Moss", date="3 May 2021", amount="$40.50")
    assert "{" not in filled
    assert "}" not in filled


@pytest.mark.parametrize("pattern", NOTICES)
def test_a_pattern_has_no_other_amount_or_month(pattern: str) -> None:
    assert not re.search(r"[$€£]|\b(dollars?|euros?|pounds?|cents?)\b", pattern)
    assert not any(re.search(rf"\b{named}\b", pattern) for named in (*month_name[1:], *day_name))


def test_fields_come_in_every_order_in_both_parts() -> None:
    for part in (NOTICES[:TRAINED_NOTICES], NOTICES[TRAINED_NOTICES:]):
        orders = Counter(tuple(fields(pattern)) for pattern in part)
        assert set(orders) == set(permutations(FIELDS))
        assert max(orders.values()) <= len(part) / 3


def test_notices_differ_in_more_than_their_fields() -> None:
    bare = [re.sub(r"\{.*?\}", "", pattern) for pattern in NOTICES]
    assert [(bare[one], bare[two]) for one, two in close(bare)] == []
