"""Recall and precision, type by type: on drawn values in sentences and on public labelled data.

A drawn value counts as found where a span covers it exactly; any other span of the kind counts
against precision. On the labelled data a span counts where it overlaps a label of its type.
"""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from strop.curate.clean.personal.find import find
from tests.support import ROOT
from tests.support.personal import FRAMES, sentences

DATA = Path(os.environ.get("STROP_DATA", ROOT.parent / "shared/data"))
COUNT = 1_000


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", sorted(FRAMES))
def test_drawn_values_valid_and_nearly_valid(kind: str, seed: int) -> None:
    wanted = "secret" if kind == "assigned" else kind
    right = wrong = 0
    for case in sentences(kind, seed, COUNT):
        for span in find(case.text):
            if span.kind == wanted:
                exact = case.valid and (span.start, span.end) == (case.start, case.end)
                right, wrong = right + exact, wrong + (not exact)
    assert right / COUNT >= 0.97, right
    assert right / (right + wrong) >= 0.95, wrong


LABELS = {
    "EMAIL_ADDRESS": "email",
    "CREDIT_CARD": "card",
    "PHONE_NUMBER": "phone",
    "DOMAIN_NAME": "url",
    "IBAN_CODE": "iban",
    "US_SSN": "ssn",
    "IP_ADDRESS": "ip",
}
LEAST = dict.fromkeys(LABELS.values(), (0.97, 0.95)) | {"phone": (0.9, 0.95)}
"""Recall and precision. Six phone labels of the set are numbers that no plan knows: four American
ones with an exchange from 000 to 199, two British ones of a block that is not given out."""


def labelled() -> list[dict[str, Any]]:
    path = DATA / "pii/synthetic.jsonl.gz"
    if not path.exists():
        pytest.skip(f"no public data at {path} (set STROP_DATA)")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.realdata
@pytest.mark.parametrize("kind", sorted(LEAST))
def test_labelled_public_sentences(kind: str) -> None:
    met = labels = right = found = 0
    for row in labelled():
        places = [(s["start"], s["end"]) for s in row["spans"] if LABELS.get(s["type"]) == kind]
        spans = [(s.start, s.end) for s in find(row["text"]) if s.kind == kind]
        labels, found = labels + len(places), found + len(spans)
        met += sum(any(a < d and c < b for c, d in spans) for a, b in places)
        right += sum(any(a < d and c < b for a, b in places) for c, d in spans)
    recall, precision = LEAST[kind]
    assert labels >= 6
    assert met / labels >= recall, (met, labels)
    assert right / found >= precision, (right, found)


@pytest.mark.realdata
def test_ordinary_answers_hold_no_secrets_cards_or_national_numbers() -> None:
    """Word problems and programs are full of numbers; none of them is a person's."""
    for name in ("gsm8k/test", "mbpp/full", "humaneval/problems"):
        path = DATA / f"{name}.jsonl.gz"
        if not path.exists():
            pytest.skip(f"no public data at {path} (set STROP_DATA)")
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                for text in map(str, json.loads(line).values()):
                    spans = find(
                        text, kinds=["secret", "card", "iban", "ssn", "national_id", "phone"]
                    )
                    assert not spans, [text[span.start : span.end] for span in spans]
