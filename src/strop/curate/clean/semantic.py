"""Records that say the same in other words: the extra `semhash`, with a static model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from strop.curate.clean.duplicates import Duplicates, RecordParts, parts_of
from strop.curate.embeddings import static_model
from strop.data.duplicates import Words, numbers, words
from strop.data.near.find import Repeats
from strop.errors import UsageError
from strop.types import Record

THRESHOLD = 0.9
"""Cosine similarity of two texts' embeddings from which they say the same (semhash's own)."""


def find_semantic_duplicates(
    records: Iterable[Record], model: Path, *, threshold: float = THRESHOLD
) -> Duplicates:
    """What each record repeats in meaning, as `find_duplicates` has it: prompt and answers each of
    their own counterparts, and all else equal.

    Two texts say the same where the cosine similarity of their embeddings is at least `threshold`
    and their numbers agree. `model` is the folder of a model2vec model. All texts and embeddings
    are held in memory. Raises `UsageError` where the extra is missing or the threshold is none, and
    `ModelError` where the folder holds no such model.
    """
    if not 0 < threshold <= 1:
        raise UsageError(f"a similarity of {threshold} cannot be asked for",
                         fix="give a threshold above 0 and up to 1, such as 0.9")  # fmt: skip
    encoder = _encoder(model)
    rows, prompts, answers = RecordParts(), list[str](), list[str]()
    for record in records:
        parts = parts_of(record)
        rows.add(parts)
        prompts += [] if parts.prompt is None else [parts.prompt]
        answers += parts.answers
    return rows.joined(*(_repeats(texts, encoder, threshold) for texts in (prompts, answers)))


def _encoder(model: Path) -> Any:
    try:
        import semhash  # noqa: F401 - asked for here, so that the message comes before the work
    except ImportError:
        raise UsageError("semantic duplicates need the semhash extra",
                         fix="pip install 'strop[semhash]'") from None  # fmt: skip
    return static_model(model, "semhash")


def _repeats(texts: Sequence[str], encoder: Any, threshold: float) -> Repeats:
    places: dict[Words, int] = {}
    equal = np.array([places.setdefault(words(text), n) for n, text in enumerate(texts)], np.int64)
    first = np.arange(len(texts))
    for later, earlier in _said_before(texts, places, encoder, threshold):
        first[later] = earlier
    return Repeats(first[equal], equal)


def _said_before(
    texts: Sequence[str], places: dict[Words, int], encoder: Any, threshold: float
) -> Iterable[tuple[int, int]]:
    """(text, first text that says the same) of those different texts that have one; texts with
    other numbers are never compared."""
    from semhash import SemHash

    by_numbers: dict[Words, list[int]] = {}
    for text, place in places.items():
        by_numbers.setdefault(numbers(text), []).append(place)
    for compared in by_numbers.values():
        if len(compared) < 2:
            continue
        rows = [{"text": texts[place], "place": str(place)} for place in compared]
        found = SemHash.from_records(rows, columns=["text"], model=encoder)
        groups: dict[int, list[int]] = {}
        for one in found.self_deduplicate(threshold=threshold).filtered:
            kept = int(one.duplicate_of["place"])
            groups.setdefault(kept, [kept]).append(int(one.record["place"]))
        for group in groups.values():
            yield from ((place, min(group)) for place in group if place != min(group))
