"""Finds items of an eval in training data."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from strop.data.duplicates import FREQUENT, LONG, Words, asked, numbers, words
from strop.text.parse import plain, spoken
from strop.types import Demonstration, Document, Feedback, Origin, Preference, Record, Task

GRAM = LONG
"""Length in words of a run that a long prompt must not share with training (Brown et al. 2020,
arXiv 2005.14165, appendix C)."""
BLOCK = 7
"""A run of 13 words holds a whole block of 7 that starts at a multiple of 7."""
OWN = 7
"""Words of a run that have to be outside templates."""
LONG_ANSWER = 50
"""An answer with at least this many words is unique to its question."""
SHOWN = 5
"""Places in the training data that a report names for an item."""

How = Literal["prompt", "13-gram", "answer"]

Told = Mapping[str, str]
"""Columns of a row, each with its value as JSON."""


@dataclass(frozen=True, slots=True)
class Match:
    """An eval item that was trained on.

    `Match(3, "13-gram", share=0.8, count=2, places=(Origin("sft.jsonl", 17), ...))`: item 3 (from
    0) shares 80 % of its 13-grams with 2 training records. `share` is 1 if the whole text is equal.
    """

    item: int
    how: How
    share: float
    count: int
    places: tuple[Origin, ...]


@dataclass(frozen=True, slots=True)
class Overlap:
    """`Overlap(items=200, records=9000, matches=(Match(3, ...),))`."""

    items: int
    records: int
    matches: tuple[Match, ...]


def overlap(
    items: Sequence[Task | Preference],
    training: Iterable[Record],
    told_by: Sequence[Sequence[str]] = (),
) -> Overlap:
    """The eval items that appear in the training records; items are identified by their prompts.

    `told_by` names, for each item, columns that belong to what is asked beside the prompt (a hidden
    persona, the rows of a database): a training record that has one of them with another value is
    another task. One that lacks the column may be the same.

    An item appears if training has

    - an equal prompt, after normalisation (`strop.data.duplicates.words`), in text or chat form,
      also if it is one turn of a conversation or one line of a document;
    - one of its runs of 13 words, for prompts of at least 13 words, in a prompt or document that
      also holds every number of the item (one run is enough, as in GPT-3; `share` is the share of
      runs). A run in more than 10 different training texts and in two items, or in more than 10
      items, belongs to a template; other runs count only with 7 words outside template runs;
    - an equal answer of at least 50 words (`chosen`, `answer`). A shorter answer under another
      prompt is no overlap: many questions have the answer 5.
    """
    told = [_told(item, columns) for item, columns in zip(items, told_by, strict=bool(told_by))]
    index = _Index.of(
        [words(asked(item.prompt)) for item in items], [_answer(i) for i in items], told
    )
    names = list(dict.fromkeys(name for columns in told_by for name in columns))
    records = 0
    for record in training:
        records += 1
        of_record = _told(record, names)
        for text in asked_in(record):
            index.look(words(text), record.origin, of_record)
        if index.answers:
            for answer in _answers(record):
                index.note("answer", index.answers.get(words(answer), ()), record.origin)
    found = {match.item: match for match in (*index.long_matches(), *index.equal_matches())}
    return Overlap(len(items), records, tuple(found[item] for item in sorted(found)))


def eval_item(record: Record) -> Task | Preference:
    """A record of an eval file as prompt and answer, for which overlap is searched."""
    if isinstance(record, Task | Preference):
        return record
    if isinstance(record, Document):
        return Task(record.text, {}, record.origin)
    return Task(record.prompt, {"answer": spoken(record.completion)}, record.origin)


@dataclass(slots=True)
class _Index:
    """An index of the eval items' prompts, answers and runs, with the places found so far."""

    texts: Sequence[Words]
    prompts: Mapping[Words, list[int]]
    answers: Mapping[Words, list[int]]
    grams: Mapping[Words, int]
    """Run of 13 words -> items that hold it."""
    blocks: frozenset[Words]
    told: Sequence[Told]
    """What each item is told by beside its prompt; empty where prompts alone count."""
    equal: dict[tuple[int, How], list[Origin]] = field(default_factory=dict)
    seen: dict[Words, list[tuple[Origin, Told]]] = field(default_factory=dict)
    """Training texts that share a run with some item."""
    holders: dict[Words, list[Words]] = field(default_factory=dict)
    """Run -> the different training texts that hold it."""

    @classmethod
    def of(cls, prompts: Sequence[Words], answers: Sequence[Words], told: Sequence[Told]) -> _Index:
        grams = Counter(gram for text in set(prompts) for gram in set(_runs(text)))
        blocks = {gram[i : i + BLOCK] for gram in grams for i in range(GRAM - BLOCK + 1)}
        long_answers = [text if len(text) >= LONG_ANSWER else () for text in answers]
        return cls(prompts, _places(prompts), _places(long_answers), grams, frozenset(blocks), told)

    def look(self, text: Words, origin: Origin, told: Told) -> None:
        """Look for equal prompts and shared runs in one training text."""
        same = [item for item in self.prompts.get(text, ()) if self._same(item, told)]
        self.note("prompt", same, origin)
        if text in self.seen:
            self.seen[text].append((origin, told))
        elif any(text[i : i + BLOCK] in self.blocks for i in range(0, len(text), BLOCK)):
            held = [gram for gram in set(_runs(text)) if gram in self.grams]
            for gram in held:
                self.holders.setdefault(gram, []).append(text)
            if held:
                self.seen[text] = [(origin, told)]

    def note(self, how: How, items: Iterable[int], origin: Origin) -> None:
        for item in items:
            self.equal.setdefault((item, how), []).append(origin)

    def equal_matches(self) -> list[Match]:
        """All matches; those of equal answers come first, so that equal prompts replace them."""
        found = sorted(self.equal.items(), key=lambda one: one[0][1])
        return [Match(item, how, 1.0, len(places), tuple(places)) for (item, how), places in found]

    def long_matches(self) -> list[Match]:
        made = (self._long_match(item, text) for item, text in enumerate(self.texts))
        return [match for match in made if match is not None]

    def _long_match(self, item: int, text: Words) -> Match | None:
        runs = self._own_runs(text)
        needed = set(numbers(text))
        fitting = {
            run: [other for other in self.holders.get(run, ()) if needed <= set(other)]
            for run in runs
        }
        shared = [run for run in runs if fitting[run]]
        if not shared:
            return None
        others = dict.fromkeys(other for run in shared for other in fitting[run])
        found = [one for other in others for one in self.seen[other]]
        places = [origin for origin, told in found if self._same(item, told)]
        if not places:
            return None
        places.sort(key=lambda origin: (origin.path, origin.line))
        share = len(shared) / len(runs)
        return Match(item, "13-gram", share, len(places), tuple(places))

    def _same(self, item: int, told: Told) -> bool:
        """Whether no column says that a record is another task than this item."""
        own = self.told[item] if self.told else {}
        return all(told.get(name, value) == value for name, value in own.items())

    def _own_runs(self, text: Words) -> list[Words]:
        """The different runs of a text with enough words of its own."""
        runs = list(_runs(text))
        shared = [place for place, run in enumerate(runs) if self._is_template(run)]
        covered = {place + offset for place in shared for offset in range(GRAM)}
        own = [place not in covered for place in range(len(text))]
        kept = [run for n, run in enumerate(runs) if sum(own[n : n + GRAM]) >= OWN]
        return list(dict.fromkeys(kept))

    def _is_template(self, run: Words) -> bool:
        holders, items = self.holders.get(run, ()), self.grams[run]
        return items > FREQUENT or (len(holders) > FREQUENT and items > 1)


def asked_in(record: Record) -> list[str]:
    """The prompt texts of a training record: the whole, and its turns or lines one by one."""
    if isinstance(record, Document):
        lines = [line for line in record.text.splitlines() if line.strip()]
        return list(dict.fromkeys([record.text, *lines]))
    texts = [asked(record.prompt)]
    turns = [] if isinstance(record.prompt, str) else list(record.prompt)
    if isinstance(record, Demonstration) and not isinstance(record.completion, str):
        turns += record.completion
    texts += [plain([turn]) for turn in turns if turn["role"] == "user"]
    return list(dict.fromkeys(texts))


def _answers(record: Record) -> list[str]:
    """The answer texts of a training record."""
    if isinstance(record, Demonstration | Feedback):
        return [spoken(record.completion)]
    if isinstance(record, Preference):
        return [spoken(record.chosen), spoken(record.rejected)]
    return []


def _answer(item: Task | Preference) -> Words:
    if isinstance(item, Preference):
        return words(spoken(item.chosen))
    answer = item.columns.get("answer")
    return words(answer) if isinstance(answer, str) else ()


def _told(record: Record, columns: Iterable[str]) -> Told:
    return {
        name: json.dumps(record.columns[name], sort_keys=True, default=str)
        for name in columns
        if name in record.columns
    }


def _places(texts: Sequence[Words]) -> dict[Words, list[int]]:
    found: dict[Words, list[int]] = {}
    for place, text in enumerate(texts):
        if text:
            found.setdefault(text, []).append(place)
    return found


def _runs(text: Words) -> Iterable[Words]:
    return (text[i : i + GRAM] for i in range(len(text) - GRAM + 1))
