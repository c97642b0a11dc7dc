"""Records that repeat others: prompt and answers alike, each by itself."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xxhash

from strop.data.bad_rows import BadRow
from strop.data.duplicates import words
from strop.data.near.find import RepeatFinder, Repeats
from strop.data.near.pieces import mixed
from strop.data.near.ragged import I64, U64
from strop.text.parse import plain
from strop.types import (
    Demonstration,
    Document,
    Feedback,
    Message,
    Origin,
    Preference,
    Record,
    Task,
    Text,
)

EXACT, NEAR = "duplicate", "near_duplicate"
"""Kinds under which `unique_records` counts what it leaves out."""
_PROVENANCE = ("meta", "id")
"""Columns of a task that say where it comes from, not what it asks."""
_JSON = json.JSONEncoder(sort_keys=True, default=str)


@dataclass(frozen=True, slots=True)
class Parts:
    """What of a record is compared: `Parts("feedback", True, "Solve 2x = 6", ("x = 3",))`.

    `fixed` has to be equal as it is: a record's kind, its label, tools and system messages. The
    prompt (None for a document) and the answers may be near-duplicates, each of its own
    counterpart, so that a pair is no copy of the same pair with its answers swapped, and "yes" none
    of "no" under a long prompt.
    """

    kind: str
    fixed: Any
    prompt: str | None
    answers: tuple[str, ...]


def parts_of(record: Record) -> Parts:
    """What of a record is compared with other records."""
    return _PARTS[type(record)](record)


def _document(record: Document) -> Parts:
    return Parts("document", None, None, (record.text,))


def _demonstration(record: Demonstration) -> Parts:
    fixed = _system(record.prompt), record.columns.get("tools")
    return Parts("demonstration", fixed, _told(record.prompt), (_told(record.completion),))


def _preference(record: Preference) -> Parts:
    fixed = _system(record.prompt), record.columns.get("tools")
    answers = _told(record.chosen), _told(record.rejected)
    return Parts("preference", fixed, _told(record.prompt), answers)


def _feedback(record: Feedback) -> Parts:
    fixed = record.label, _system(record.prompt), record.columns.get("tools")
    return Parts("feedback", fixed, _told(record.prompt), (_told(record.completion),))


def _task(record: Task) -> Parts:
    """A task's columns are what its rewards judge by."""
    columns = {key: value for key, value in record.columns.items() if key not in _PROVENANCE}
    return Parts("task", (_system(record.prompt), columns), _told(record.prompt), ())


_PARTS: Mapping[type[Record], Callable[[Any], Parts]] = {
    Document: _document,
    Demonstration: _demonstration,
    Preference: _preference,
    Feedback: _feedback,
    Task: _task,
}


def _system(prompt: Text) -> str:
    return "" if isinstance(prompt, str) else plain([m for m in prompt if m["role"] == "system"])


def _told(text: Text) -> str:
    """All that is said and called, system messages aside."""
    if isinstance(text, str):
        return text
    return "\n".join(_message(m) for m in text if m.get("role") != "system")


def _message(message: Message) -> str:
    calls = message.get("tool_calls")
    said = plain([message])
    return f"{said}\n{_JSON.encode(calls)}" if calls else said


@dataclass(frozen=True, slots=True)
class Duplicates:
    """What the records of a stream repeat.

    `Duplicates(records=Repeats(...), prompts=Repeats(...), answers=Repeats(...))`. `records` has an
    entry for every record; `prompts` for every record that has a prompt, `answers` for every answer
    (or document), both in the order of the stream.
    """

    records: Repeats
    prompts: Repeats
    answers: Repeats

    @property
    def unique_prompts(self) -> int:
        """Different prompts; near-duplicates of one another count as different."""
        return len(np.unique(self.prompts.equal))

    def plain(self) -> dict[str, int]:
        """The figures of a report; `near_duplicate_prompts` are those of the unique prompts that
        are near-duplicates of others."""
        return {
            "records": len(self.records.first),
            "exact_duplicates": int(self.records.exactly.exact.sum()),
            "near_duplicates": int((self.records.near & ~self.records.exactly.exact).sum()),
            "prompts": len(self.prompts.first),
            "unique_prompts": self.unique_prompts,
            "near_duplicate_prompts": self.unique_prompts - len(np.unique(self.prompts.first)),
            "answers": len(self.answers.first),
            "unique_answers": len(np.unique(self.answers.equal)),
        }


def fixed_hash(parts: Parts) -> int:
    """64 bits of all that has to be equal as it is."""
    return xxhash.xxh3_64_intdigest(_JSON.encode([parts.kind, parts.fixed]).encode())


@dataclass(slots=True)
class RecordParts:
    """Which parts each record of a stream has, without the parts themselves: `fixed` [records] a
    hash of what has to be equal, `prompted` whether it has a prompt, `answers` how many answers."""

    fixed: array[int] = field(default_factory=lambda: array("Q"))
    prompted: array[int] = field(default_factory=lambda: array("b"))
    answers: array[int] = field(default_factory=lambda: array("b"))

    def add(self, parts: Parts) -> None:
        self.fixed.append(fixed_hash(parts))
        self.prompted.append(parts.prompt is not None)
        self.answers.append(len(parts.answers))

    def joined(self, prompts: Repeats, answers: Repeats) -> Duplicates:
        """A record repeats the first one with an equal `fixed` whose prompt and answers repeat the
        same texts as its own."""
        first = _first_places(self._keys(prompts.first, answers.first))
        equal = _first_places(self._keys(prompts.equal, answers.equal))
        return Duplicates(Repeats(first, equal), prompts, answers)

    def _keys(self, prompts: I64, answers: I64) -> U64:
        keys = mixed(np.array(self.fixed, dtype=np.uint64))
        asked = np.array(self.prompted, dtype=bool)
        keys[asked] = mixed(keys[asked] + prompts.astype(np.uint64) + np.uint64(1))
        counts = np.array(self.answers, dtype=np.int64)
        starts = np.cumsum(counts) - counts
        for nth in range(int(counts.max(initial=0))):
            has = counts > nth
            said = answers[starts[has] + nth].astype(np.uint64)
            keys[has] = mixed(keys[has] + mixed(said + np.uint64(1)))
        return keys


def _first_places(keys: U64) -> I64:
    """[keys] the place of the first equal one."""
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    places: I64 = first[which].astype(np.int64)
    return places


def find_duplicates(records: Iterable[Record]) -> Duplicates:
    """What each record of a stream repeats; the records are read once, and none is kept.

    A record repeats an earlier one of its kind when everything of it does: its prompt, each of its
    answers, label, system messages and tools (of tasks also the columns, `meta` and `id` aside).
    Prompts and answers may be near-duplicates; see `strop.data.near.find.RepeatFinder` for what
    counts and for how much memory is used. Raises `OutputError` where the temporary folder is full.
    """
    rows, prompts, answers = RecordParts(), RepeatFinder(), RepeatFinder()
    for record in records:
        parts = parts_of(record)
        rows.add(parts)
        if parts.prompt is not None:
            prompts.add(words(parts.prompt))
        for answer in parts.answers:
            answers.add(words(answer))
    return rows.joined(prompts.found(), answers.found())


def unique_records(
    records: Iterable[Record], repeats: Repeats
) -> Iterator[tuple[Record, BadRow | None]]:
    """The same stream again: each record with `None` where it is new, else with the reason why it
    is left out: `BadRow("near_duplicate", "nearly the same as pairs.jsonl:3", Origin(...), True)`.
    """
    exact = repeats.exact
    wanted = set(repeats.first[repeats.first != np.arange(len(repeats.first))].tolist())
    origins: dict[int, Origin] = {}
    for place, record in enumerate(records):
        first = int(repeats.first[place])
        if place in wanted:
            origins[place] = record.origin
        if first == place:
            yield record, None
        elif exact[place]:
            yield record, BadRow(EXACT, f"the same as {origins[first]}", record.origin, True)
        else:
            reason = f"nearly the same as {origins[first]}"
            yield record, BadRow(NEAR, reason, record.origin, True)
