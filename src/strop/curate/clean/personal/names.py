"""Names and places, told from the words around them: the extra `presidio` and a spaCy model.

Presidio runs here with two recognisers: the entities of the spaCy model, and streets by their
wording. What proves itself by its form (numbers, addresses on the net, keys) is found by the other
files of this room, with or without the extra.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from strop.curate.clean.personal.spans import Kind, Recogniser, Span
from strop.errors import UsageError

MODEL = "en_core_web_sm"
"""The spaCy model that is taken unless another is named."""
LONGEST = 50_000
"""Characters that are read at a time; a model's memory grows with them."""
LEAST_SCORE = 0.4

_KINDS: dict[str, Kind] = {"PERSON": "person", "LOCATION": "location"}
_LABELS = {
    "PERSON": "PERSON",
    "PER": "PERSON",
    "GPE": "LOCATION",
    "LOC": "LOCATION",
    "FAC": "LOCATION",
}
"""Labels of spaCy's models -> Presidio's."""
_FLAT = r"(?:[, ]{1,2}(?:Apt|Apartment|Suite|Ste|Unit|Flat|Floor|No)\.? ?\d{1,5}[A-Za-z]?)?"
_NAME = r"[A-Z\u00c0-\u00dd][\w'-]{1,30}"
_STREET = (
    r"\b\d{1,6}[A-Za-z]? (?:[A-Z][\w'.-]{1,30} ){1,4}(?:Street|St|Avenue|Ave|Road|Rd|Lane|Ln|Drive"
    rf"|Dr|Boulevard|Blvd|Court|Ct|Place|Pl|Square|Sq|Terrace|Way|Parkway|Highway|Hwy)\b\.?{_FLAT}"
    r"|\b(?:\d{1,5} )?(?:rue|avenue|boulevard|place|via|viale|piazza|calle|avenida|plaza|rua|ulica"
    r"|ul\.) (?:(?:de|du|des|d[aeio]l?|dell[aeo]|dos|das|la|le|les|los|las) ){0,3}"
    rf"{_NAME}(?: {_NAME}){{0,2}}(?:,? \d{{1,5}}\b)?{_FLAT}"
    r"|\b[A-Z\u00c0-\u00dd][\w-]{1,40}(?:stra\u00dfe|strasse|weg|gasse|allee|platz|gatan|v\u00e4gen"
    rf"|gata|vej|gade|veien|straat|laan|katu|tie|utca) \d{{1,5}}[A-Za-z]?\b{_FLAT}"
)
"""A street with its number, as it is written in English, Romance and Germanic countries."""


def names_recogniser(model: str | None = None) -> Recogniser:
    """A recogniser of persons and places for `find(text, others=[...])`.

    `model` is an installed spaCy model's name or the folder of one (`en_core_web_sm` unless given);
    nothing is downloaded. Raises `UsageError` where the extra or the model is missing.
    """
    analyzer, language = _analyzer(model or MODEL)

    def spans(text: str) -> Iterator[Span]:
        for start in _starts(text):
            part = text[start : start + LONGEST]
            for found in analyzer.analyze(
                part, language, list(_KINDS), score_threshold=LEAST_SCORE
            ):
                yield Span(_KINDS[found.entity_type], start + found.start, start + found.end)

    return spans


def _starts(text: str) -> range:
    return range(0, len(text), LONGEST)


def _analyzer(model: str) -> tuple[Any, str]:
    """Presidio's engine over one spaCy model, and the model's language."""
    try:
        import spacy
        from presidio_analyzer import AnalyzerEngine, Pattern, PatternRecognizer, RecognizerRegistry
        from presidio_analyzer.nlp_engine import NerModelConfiguration, SpacyNlpEngine
        from presidio_analyzer.predefined_recognizers import SpacyRecognizer
    except ImportError as error:
        raise UsageError(
            f"names and places need the extra: {error.name} is not installed",
            fix="pip install 'strop[presidio]', or leave names and places out",
        ) from None
    if not (spacy.util.is_package(model) or (Path(model) / "meta.json").is_file()):
        raise UsageError(
            f"no spaCy model {model}",
            fix="name an installed model, or the folder of one (it holds meta.json); "
            f"`python -m spacy download {MODEL}` fetches the usual one",
        )
    loaded = spacy.load(model)
    language = loaded.lang
    entities = NerModelConfiguration(
        model_to_presidio_entity_mapping=_LABELS, labels_to_ignore=_other_labels(loaded)
    )
    engine = SpacyNlpEngine(
        models=[{"lang_code": language, "model_name": model}], ner_model_configuration=entities
    )
    engine.nlp = {language: loaded}
    streets = PatternRecognizer(
        supported_entity="LOCATION",
        supported_language=language,
        patterns=[Pattern("street", _STREET, 0.6)],
        global_regex_flags=re.UNICODE,
    )
    registry = RecognizerRegistry(
        recognizers=[SpacyRecognizer(language, list(_KINDS)), streets],
        supported_languages=[language],
    )
    return AnalyzerEngine(registry, engine, supported_languages=[language]), language


def _other_labels(loaded: Any) -> list[str]:
    """Entities that the model knows and nobody asked for: dates, sums of money."""
    named = loaded.get_pipe("ner").labels if "ner" in loaded.pipe_names else ()
    return [label for label in named if label not in _LABELS]
