"""What the data verbs ask of any record: its prompt, its answer, a column, a draw of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from strop.data.records import row_of
from strop.errors import DataError
from strop.files import digest64, sha256_hex
from strop.types import Demonstration, Document, Feedback, Preference, Record, Text

ANSWERS = {Demonstration: "completion", Feedback: "completion", Preference: "chosen"}
"""The attribute of a record that holds the answer worth imitating; others have none."""


def prompt_of(record: Record) -> Text:
    """What a record asks. Raises `DataError` (kind `no_prompt`) for a text, which asks nothing."""
    if isinstance(record, Document):
        raise DataError("a text has no prompt", where=str(record.origin),
                        fix="give prompts, or records with a prompt", kind="no_prompt")  # fmt: skip
    return record.prompt


def answer_in(record: Record) -> Text:
    """The completion, or the chosen answer of a pair. Raises `DataError` (kind `no_answer`) for
    texts and tasks, which have none."""
    if type(record) not in ANSWERS:
        raise DataError("the record has no answer", where=str(record.origin),
                        fix="give demonstrations or pairs", kind="no_answer")  # fmt: skip
    answer: Text = getattr(record, ANSWERS[type(record)])
    return answer


def value_at(record: Record, name: str) -> Any:
    """A column, nested where the name has dots (`meta.score`); `None` where there is none."""
    here: Any = record.columns
    if name in here:
        return here[name]
    for part in name.split("."):
        if not isinstance(here, Mapping):
            return None
        here = here.get(part)
    return here


def content_hash(record: Record) -> str:
    """32 hex digits of the sha256 of all that a record says: the same wherever its row stands."""
    text = json.dumps(row_of(record), sort_keys=True, default=str)
    return sha256_hex(text, 32)


def draw(seed: int, text: str) -> float:
    """A number in [0, 1), a pure function of the seed and the text."""
    return digest64(f"{seed}\0{text}") / 2**64
