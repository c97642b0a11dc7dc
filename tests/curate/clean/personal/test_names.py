"""Names and places through the extra `presidio`, with a model that is made here."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from strop.curate.clean.personal.find import find
from strop.curate.clean.personal.names import LONGEST, names_recogniser
from strop.curate.clean.personal.replace import replace
from strop.errors import UsageError

INSTALLED = all(importlib.util.find_spec(name) for name in ("presidio_analyzer", "spacy"))
with_extra = pytest.mark.skipif(not INSTALLED, reason="needs the extra: strop[presidio]")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spaCy model that knows one person, one city and a date."""
    import spacy

    made = spacy.blank("en")
    ruler = made.add_pipe("entity_ruler")
    ruler.add_patterns(  # type: ignore[attr-defined]
        [
            {"label": "PERSON", "pattern": "Anna Karlsson"},
            {"label": "GPE", "pattern": "Berlin"},
            {"label": "DATE", "pattern": "Tuesday"},
        ]
    )
    folder = tmp_path_factory.mktemp("spacy") / "model"
    made.to_disk(folder)
    return folder


def read(text: str, model: Path) -> list[tuple[str, str]]:
    spans = find(text, others=[names_recogniser(str(model))])
    return [(span.kind, text[span.start : span.end]) for span in spans]


@with_extra
def test_persons_and_places_of_the_model_and_nothing_else_of_it(model: Path) -> None:
    text = "On Tuesday Anna Karlsson (a@b.org) came to Berlin."
    assert read(text, model) == [
        ("person", "Anna Karlsson"),
        ("email", "a@b.org"),
        ("location", "Berlin"),
    ]


@with_extra
@pytest.mark.parametrize(
    "street",
    [
        "12 Main Street",
        "4 Long Hill Road, Apt 4b",
        "Hauptstraße 5",
        "12 rue de la Paix",
        "Allévägen 7",
    ],
)
def test_streets_by_their_wording(street: str, model: Path) -> None:
    assert read(f"It is at {street} since May", model) == [("location", street)]
    assert read("A long road, a main street, 12 roads", model) == []


@with_extra
def test_a_name_is_replaced_wherever_the_record_has_it(model: Path) -> None:
    record = {"prompt": "I am Anna Karlsson", "chosen": {"Anna Karlsson": ["in Berlin"]}}
    new, counts = replace(record, others=[names_recogniser(str(model))])
    assert new == {"prompt": "I am <PERSON_1>", "chosen": {"<PERSON_1>": ["in <LOCATION_1>"]}}
    assert (counts["person"], counts["location"]) == (2, 1)


@with_extra
def test_a_long_text_is_read_to_its_end(model: Path) -> None:
    filler = "word " * (LONGEST // 5)
    assert read(filler + "and Anna Karlsson", model) == [("person", "Anna Karlsson")]


@with_extra
def test_a_model_that_is_not_there_is_named_and_nothing_is_fetched() -> None:
    with pytest.raises(UsageError, match="no spaCy model en_core_web_lgg"):
        names_recogniser("en_core_web_lgg")


def test_without_the_extra_the_message_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(UsageError, match=r"pip install 'strop\[presidio\]'"):
        names_recogniser()
