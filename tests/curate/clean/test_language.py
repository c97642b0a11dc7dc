from __future__ import annotations

import pytest

from strop.curate.clean.faults import Fault
from strop.curate.clean.language import foreign
from strop.errors import UsageError

GERMAN = "Ja, ich kann Deutsch sprechen. Wie kann ich Ihnen heute helfen?"
FRENCH = "La médecine dentaire est la branche de la médecine qui soigne les dents et la bouche."
ENGLISH = "Dentistry is the branch of medicine that looks after the teeth and the mouth."
CHINESE = "牙科是医学的一个分支,负责照顾牙齿和口腔的健康,预防和治疗各种口腔疾病。"


def test_a_text_in_another_language_is_a_fault_that_names_both() -> None:
    assert foreign(GERMAN, ["en"]) == Fault("language", "de, not en")
    assert foreign(FRENCH, ["en", "de"]) == Fault("language", "fr, not de or en")
    assert foreign(CHINESE, ["en"]) == Fault("language", "zh, not en")


@pytest.mark.parametrize("text", [GERMAN, FRENCH, ENGLISH, CHINESE])
def test_a_text_in_one_of_the_wanted_languages_is_none(text: str) -> None:
    assert foreign(text, ["en", "de", "fr", "zh"]) is None


@pytest.mark.parametrize(
    "text",
    ["", "42", "Ja", "```python\nfür = ich + nicht * oder - wenn\n```", "$\\alpha + \\beta$",
     "Name: Tuna Avocado Roll-Ups", "1. Saudi Arabia\n2. Singapore\n3. South Africa\n4. Spain"],
)  # fmt: skip
def test_nobody_can_tell_the_language_of_code_names_and_single_words(text: str) -> None:
    assert foreign(text, ["en"]) is None


def test_the_shortest_text_that_is_told_is_chosen() -> None:
    assert foreign(GERMAN, ["en"], shortest=len(GERMAN) + 1) is None


def test_an_unknown_code_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown language english"):
        foreign(GERMAN, ["english"])
