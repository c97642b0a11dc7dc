"""How much of an eval stands in training: verbatim copies are found, other numbers are told apart."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from strop.curate.clean.contamination import Coverage, Exposure, contamination
from strop.types import Demonstration, Document, Origin, Record, Task
from tests.support import ROOT

DATA = Path(os.environ.get("STROP_DATA", ROOT.parent / "shared/data")) / "gsm8k"
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def asks(prompt: str) -> Task:
    return Task(prompt, {}, Origin("test.jsonl", 1))


def learnt(prompt: str, line: int = 1) -> Demonstration:
    return Demonstration(prompt, "x", {}, Origin("sft.jsonl", line))


def only(item: str, *training: Record) -> Exposure:
    (exposure,) = contamination([asks(item)], training).exposures
    return exposure


def letters(first: int, last: int) -> str:
    return " ".join(LETTERS[first:last])


def test_coverage_by_hand() -> None:
    """20 words have 8 runs of 13 and 13 runs of 8; 14 of them in a row hold 2 and 7."""
    item = letters(0, 20)
    exposure = only(item, learnt(letters(0, 14).upper() + " so!"), learnt(letters(12, 16)))
    assert exposure.coverage == (
        Coverage(13, exact=0.0, normalised=2 / 8, numbers_aside=2 / 8),
        Coverage(8, exact=0.0, normalised=7 / 13, numbers_aside=7 / 13),
    )
    assert only(item, learnt("now " + letters(0, 14))).coverage[0].exact == 2 / 8


def test_shares_add_up_over_training_texts() -> None:
    item = letters(0, 20)
    training = [learnt(letters(0, 10)), learnt(letters(8, 20))]  # runs 0-2 and 8-12 of 8
    exposure = only(item, *training)
    assert exposure.coverage[1] == Coverage(8, 8 / 13, 8 / 13, 8 / 13)
    assert exposure.verdict == "clean"
    assert only(item).coverage[1] == Coverage(8, 0.0, 0.0, 0.0)


def test_an_item_too_short_for_runs_has_no_shares() -> None:
    exposure = only("Solve 3x + 7 = 22", learnt("Solve 3x + 7 = 22!"))
    assert exposure.coverage == (Coverage(13, None, None, None), Coverage(8, None, None, None))
    assert (exposure.verdict, exposure.how) == ("contaminated", "prompt")


def test_ten_words_inside_a_longer_text_are_found_by_their_8_grams() -> None:
    item = letters(0, 10)
    page = Document(f"On page 4: {item} and so on", {}, Origin("c.jsonl", 3))
    exposure = only(item, learnt("quite another thing"), page)
    assert (exposure.verdict, exposure.how) == ("contaminated", "8-gram")
    assert exposure.places == (Origin("c.jsonl", 3),)
    assert only(item, learnt(letters(0, 9))).verdict == "clean"  # 2 of 3 runs: below 70 %


STORY = "{} friends each buy {} clips in April and half as many again in May, so how many are sold?"


def test_the_same_question_with_other_numbers_is_told_apart() -> None:
    item = STORY.format(48, 7)
    template = only(item, learnt(STORY.format(31, 9), line=5))
    assert (template.verdict, template.places) == ("numbers_differ", (Origin("sft.jsonl", 5),))
    assert template.coverage[1].numbers_aside == 1.0
    assert template.coverage[1].normalised is not None
    assert template.coverage[1].normalised < 1.0
    both = only(item, learnt(STORY.format(31, 9)), learnt("Please answer: " + item, line=6))
    assert (both.verdict, both.places) == ("contaminated", (Origin("sft.jsonl", 6),))


def test_places_are_those_that_hold_most() -> None:
    item = letters(0, 26)
    training = [learnt(letters(0, 11), line=n) for n in range(1, 8)]  # 4 of 19 runs: too little
    training += [learnt(f"{letters(0, 12)} {letters(11, 26)} {n}", line=n) for n in range(8, 15)]
    exposure = only(item, *training)
    assert exposure.verdict == "contaminated"
    assert {place.line for place in exposure.places} <= set(range(8, 15))
    assert len(exposure.places) == 5


def test_figures_of_a_report() -> None:
    item = letters(0, 20)
    found = contamination([asks(item), asks("hello")], [learnt(letters(0, 14)), learnt("x")])
    assert found.plain() == {
        "items": 2, "records": 2, "contaminated": 1, "numbers_differ": 0,
        "mean_coverage": {
            "13-gram": {"exact": 0.25, "normalised": 0.25, "numbers_aside": 0.25},
            "8-gram": {"exact": 7 / 13, "normalised": 7 / 13, "numbers_aside": 7 / 13},
        },
    }  # fmt: skip
    assert contamination([asks("hello")], []).plain()["mean_coverage"]["8-gram"]["exact"] is None


def asked(name: str) -> list[str]:
    with gzip.open(DATA / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line)["question"] for line in lines]


@pytest.mark.realdata
@pytest.mark.skipif(not DATA.exists(), reason=f"no public data at {DATA} (set STROP_DATA)")
class TestGsm8k:
    def test_train_is_clean_of_test(self) -> None:
        training = [learnt(question, line) for line, question in enumerate(asked("train"), 1)]
        found = contamination([asks(question) for question in asked("test")], training)
        assert (found.records, len(found.exposures)) == (7473, 1319)
        assert found.of("contaminated") == ()
        assert len(found.of("numbers_differ")) == 1  # the plane, and the train of line 1315

    @pytest.mark.parametrize("seed", [0, 1])
    def test_all_verbatim_copies_are_found_and_changed_numbers_are_no_copies(
        self, seed: int
    ) -> None:
        draw = random.Random(seed)
        questions, training = asked("test"), [learnt(question) for question in asked("train")]
        numbered = [n for n, question in enumerate(questions) if re.search(r"\d", question)]
        chosen = draw.sample(numbered, 100)
        for n in chosen[:50]:
            training.insert(draw.randrange(len(training)), learnt(questions[n]))
        for n in chosen[50:]:
            changed = re.sub(r"\d+", lambda m: str(int(m[0]) + draw.randint(1, 9)), questions[n])
            training.insert(draw.randrange(len(training)), learnt(changed))
        found = contamination([asks(question) for question in questions], training)
        assert {one.item for one in found.of("contaminated")} == set(chosen[:50])
        assert set(chosen[50:]) <= {one.item for one in found.of("numbers_differ")}
        shares = Counter(found.exposures[n].coverage[1].normalised == 1.0 for n in chosen)
        assert shares == {True: 50, False: 50}
