"""What is kept of every row: a few numbers, so that millions of rows fit into memory."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from strop.curate.clean.duplicates import fixed_hash, parts_of
from strop.files import digest64
from strop.text.parse import plain
from strop.types import (
    Demonstration,
    Document,
    Feedback,
    Origin,
    Preference,
    Record,
    Text,
)

KINDS = ("preference", "feedback", "demonstration", "document", "task")
Numbers = NDArray[np.uint64]


def said(text: Text) -> str:
    """A text as it is told apart from others: its words, and the tools that it calls."""
    if not isinstance(text, str) and any(turn.get("tool_calls") for turn in text):
        return json.dumps(text, sort_keys=True, default=str)
    return plain(text)


def asks(prompt: Text) -> str:
    """A prompt as it is told apart from others: all turns with their roles; a lone user turn and
    the same text are one."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1 and prompt[0]["role"] == "user":
        return said(prompt)
    return "\n".join(f"{turn['role']}: {said([turn])}" for turn in prompt)


def hashed(text: str) -> int:
    """64 bits of a text; white space does not count."""
    folded = " ".join(text.split()).encode("utf-8", "surrogatepass")
    return digest64(folded)


def answers_of(record: Record) -> tuple[Text, ...]:
    """The answers of a record, the liked one first: two of a pair, none of a task."""
    if isinstance(record, Preference):
        return (record.chosen, record.rejected)
    if isinstance(record, Demonstration | Feedback):
        return (record.completion,)
    return ()


def prompt_of(record: Record) -> Text:
    """What a record asks; of a document its text."""
    return record.text if isinstance(record, Document) else record.prompt


def kind_of(record: Record) -> str:
    """`"preference"` of a `Preference`."""
    return type(record).__name__.lower()


@dataclass(slots=True)
class Ledger:
    """Numbers of every row, 59 bytes each: hashes of prompt, first and second answer (0 where there
    is none) and of all else that tells records apart (label, tools, system messages, a task's
    columns), lengths in characters, kind, label (1 for a pair), file and line."""

    prompts: array[int] = field(default_factory=lambda: array("Q"))
    first: array[int] = field(default_factory=lambda: array("Q"))
    second: array[int] = field(default_factory=lambda: array("Q"))
    fixed: array[int] = field(default_factory=lambda: array("Q"))
    prompt_lengths: array[int] = field(default_factory=lambda: array("I"))
    first_lengths: array[int] = field(default_factory=lambda: array("I"))
    second_lengths: array[int] = field(default_factory=lambda: array("I"))
    kinds: array[int] = field(default_factory=lambda: array("B"))
    labels: array[int] = field(default_factory=lambda: array("B"))
    files: array[int] = field(default_factory=lambda: array("I"))
    lines: array[int] = field(default_factory=lambda: array("Q"))
    paths: dict[str, int] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        asked = asks(prompt_of(record))
        answers = [said(answer) for answer in answers_of(record)]
        self.prompts.append(hashed(asked))
        self.prompt_lengths.append(len(asked))
        for n, (hashes, lengths) in enumerate(
            ((self.first, self.first_lengths), (self.second, self.second_lengths))
        ):
            hashes.append(hashed(answers[n]) if n < len(answers) else 0)
            lengths.append(len(answers[n]) if n < len(answers) else 0)
        self.fixed.append(fixed_hash(parts_of(record)))
        self.kinds.append(KINDS.index(kind_of(record)))
        self.labels.append(record.label if isinstance(record, Feedback) else 1)
        self.files.append(self.paths.setdefault(record.origin.path, len(self.paths)))
        self.lines.append(record.origin.line)

    def __len__(self) -> int:
        return len(self.prompts)

    def origin(self, row: int) -> Origin:
        """Where a row stands."""
        return Origin(list(self.paths)[self.files[row]], self.lines[row])

    def origins(self, rows: Iterable[int]) -> Iterator[Origin]:
        paths = list(self.paths)
        return (Origin(paths[self.files[row]], self.lines[row]) for row in rows)

    def of_kind(self, kind: str) -> NDArray[np.intp]:
        """Numbers of the rows of one kind, in order."""
        return np.flatnonzero(column(self.kinds) == KINDS.index(kind))


def column(values: array[int]) -> NDArray[np.integer]:
    """A column as numpy sees it, not copied."""
    return np.frombuffer(values, dtype=values.typecode) if len(values) else np.zeros(0, np.uint64)
