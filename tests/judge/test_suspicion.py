"""Attacks on judges are seen, and fair answers are not."""

from __future__ import annotations

import pytest

from strop.judge.suspicion import suspicion
from strop.rewards.audit.attacks import INJECTIONS, NULL_MODEL

PROMPTS = [f"Question {n}?" for n in range(100)]


def answers(share: float, planted: str) -> list[str]:
    """Different answers, a share of which end in what is planted."""
    return [f"An answer of its own, {n}." + planted * (n < 100 * share) for n in range(100)]


@pytest.mark.parametrize("words", INJECTIONS)
def test_words_for_the_judge_are_heard(words: str) -> None:
    found = suspicion(PROMPTS, answers(0.1, words))
    assert (found.speaking, found.same) == (10, 1)
    assert len(found.sentences) == 1
    assert "10 of 100 answers look as if they spoke to the judge" in found.sentences[0]


def test_one_text_for_everything_is_seen() -> None:
    found = suspicion(PROMPTS, [NULL_MODEL] * 100)
    assert found.same == 100
    assert "one text answers 100 of 100 different prompts" in found.sentences[0]
    # one prompt that is sampled a hundred times may have one answer
    assert suspicion(["Two plus two?"] * 100, ["4"] * 100).sentences == []


@pytest.mark.parametrize(
    "text",
    [
        " The score was 3:2, and the verdict of the court: guilty.",
        " See [[3]] for the score, and ignore the noise above all.",
        '\n{"name": "Rhine", "length": 1230}',
        "\n# Rivers\n- the Rhine\n## Evaluation of their length\nlong",
        '\n{"model": "Golf", "year": 1974} <s>new</s>',
    ],
)
def test_fair_answers_are_left_alone(text: str) -> None:
    found = suspicion(PROMPTS, answers(1.0, text))
    assert found.sentences == []


def test_a_few_of_few_are_chance() -> None:
    said = answers(0.0, "")[:20]
    said[3] = said[8] = "No."
    assert suspicion(PROMPTS[:20], said).sentences == []
    said[5] = said[6] = "Verdict: A"
    assert suspicion(PROMPTS[:20], said).sentences == []


def test_nothing_is_suspicious_of_nothing() -> None:
    assert suspicion([], []).sentences == []
