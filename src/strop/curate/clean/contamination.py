"""How much of an eval's items stands in training data, word for word or with other numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from typing import Any, Literal

from strop.data.duplicates import FREQUENT, Words, asked, numbers, words
from strop.data.near.pieces import has_digit
from strop.data.overlap import SHOWN, Overlap, asked_in, overlap
from strop.types import Origin, Preference, Record, Task

Way = Literal["exact", "normalised", "numbers_aside"]
Verdict = Literal["contaminated", "numbers_differ", "clean"]

GRAMS = (13, 8)
"""Lengths of runs of words: 13 as in Brown et al. 2020 (arXiv 2005.14165, appendix C), 8 as in
Chowdhery et al. 2022 (PaLM, arXiv 2204.02311, section 8)."""
MOST = 0.7
"""Share of an item's 8-grams in one training text from which that text holds the item (PaLM)."""
_BLOCK = 4
"""A run of 8 words holds a whole block of 4 that starts at a multiple of 4."""


def _as_written(text: str) -> Words:
    return tuple(text.split())


def _numbers_aside(text: Words) -> Words:
    return tuple("0" if has_digit(word) else word for word in text)


WAYS: Mapping[Way, Callable[[str, Words], Words]] = {
    "exact": lambda text, _: _as_written(text),
    "normalised": lambda _, compared: compared,
    "numbers_aside": lambda _, compared: _numbers_aside(compared),
}
"""How two texts are compared, given the text and its `words`: as they are written, after
normalisation, after normalisation with every number taken for the same one."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """The share of an item's runs of `n` words that stand anywhere in training, in three ways.

    `Coverage(13, exact=0.4, normalised=0.6, numbers_aside=1.0)`; an item of fewer than `n` words
    has no runs, and `None` for each.
    """

    n: int
    exact: float | None
    normalised: float | None
    numbers_aside: float | None


@dataclass(frozen=True, slots=True)
class Exposure:
    """What training data holds of one eval item.

    `Exposure(3, "contaminated", "13-gram", (Coverage(13, ...), Coverage(8, ...)),
    places=(Origin("sft.jsonl", 17),))`. The verdicts:

    - `contaminated`: the item was trained on; `how` is `Match.how` (see `strop.data.overlap`), or
      "8-gram" where one training text holds its numbers and at least 70 % of its 8-grams.
    - `numbers_differ`: one training text holds at least 70 % of its 8-grams once numbers are set
      aside, but not its numbers. The same template with another answer: what the model has learnt
      is the way, not the answer.
    - `clean`: neither. Shares above 0 are then common phrases, or pieces of several texts.
    """

    item: int
    verdict: Verdict
    how: str
    coverage: tuple[Coverage, ...]
    places: tuple[Origin, ...]


@dataclass(frozen=True, slots=True)
class Contamination:
    """`Contamination(items=1319, records=7473, exposures=(Exposure(0, "clean", ...), ...))`, an
    exposure for every item, in order."""

    records: int
    exposures: tuple[Exposure, ...]

    def of(self, verdict: Verdict) -> tuple[Exposure, ...]:
        return tuple(one for one in self.exposures if one.verdict == verdict)

    def plain(self) -> dict[str, Any]:
        """The figures of a report: counts, and for each n and way the mean share over items."""
        return {
            "items": len(self.exposures),
            "records": self.records,
            "contaminated": len(self.of("contaminated")),
            "numbers_differ": len(self.of("numbers_differ")),
            "mean_coverage": {
                f"{n}-gram": {way: self._mean(nth, way) for way in WAYS}
                for nth, n in enumerate(GRAMS)
            },
        }

    def _mean(self, nth: int, way: Way) -> float | None:
        shares = [getattr(one.coverage[nth], way) for one in self.exposures]
        known = [share for share in shares if share is not None]
        return sum(known) / len(known) if known else None


def contamination(items: Sequence[Task | Preference], training: Iterable[Record]) -> Contamination:
    """What training holds of each eval item. The training records are read once, and only texts
    that share 13 words in a row with an item are kept.

    Whether an item was trained on is said by `strop.data.overlap`, for 8-grams by this module;
    what an item asks is compared, in any turn of a conversation or line of a document.
    """
    index = _Index([asked(item.prompt) for item in items])
    found = overlap(items, index.watching(training))
    return Contamination(found.records, tuple(index.exposures(found)))


@dataclass(slots=True)
class _Held:
    """How much of an item one training text holds."""

    share: float
    origin: Origin


@dataclass(slots=True)
class _Index:
    """The runs of all items, which of them were found, and the texts that hold most of an item."""

    prompts: Sequence[str]
    compared: list[Words] = field(init=False)
    grams: dict[tuple[int, Way], set[Words]] = field(init=False)
    found: dict[tuple[int, Way], set[Words]] = field(init=False)
    items: dict[Words, list[int]] = field(default_factory=dict)
    """8-gram, numbers aside -> the items that hold it."""
    blocks: set[Words] = field(init=False)
    same: dict[int, list[_Held]] = field(default_factory=dict)
    """Item -> the texts that hold most of it, its numbers included."""
    other: dict[int, list[_Held]] = field(default_factory=dict)
    """Item -> the texts that hold most of it but for its numbers."""

    def __post_init__(self) -> None:
        self.compared = [words(prompt) for prompt in self.prompts]
        both = list(zip(self.prompts, self.compared, strict=True))
        self.grams = {
            (n, way): {run for text, said in both for run in _runs(as_way(text, said), n)}
            for n in GRAMS
            for way, as_way in WAYS.items()
        }
        self.found = {key: set() for key in self.grams}
        for item, said in enumerate(self.compared):
            for run in set(_runs(_numbers_aside(said), GRAMS[-1])):
                self.items.setdefault(run, []).append(item)
        self.blocks = {
            run[place : place + _BLOCK] for run in self.items for place in range(len(run) - 3)
        }

    def watching(self, training: Iterable[Record]) -> Iterator[Record]:
        """The same records, each looked at as it passes."""
        for record in training:
            for text in asked_in(record):
                self._look(text, record.origin)
            yield record

    def _look(self, text: str, origin: Origin) -> None:
        said = words(text)
        aside = _numbers_aside(said)
        if not any(aside[i : i + _BLOCK] in self.blocks for i in range(0, len(aside), _BLOCK)):
            return
        runs = {run for run in _runs(aside, GRAMS[-1]) if run in self.items}
        if not runs:
            return
        for (n, way), grams in self.grams.items():
            self.found[n, way].update(grams.intersection(_runs(WAYS[way](text, said), n)))
        self._note(said, runs, origin)

    def _note(self, said: Words, runs: set[Words], origin: Origin) -> None:
        """Note the text for every item that it holds most of; templates of many items aside."""
        counts = Counter(
            item for run in runs if len(self.items[run]) <= FREQUENT for item in self.items[run]
        )
        held = set(_runs(said, GRAMS[-1]))
        for item, count in counts.items():
            wanted = set(_runs(_numbers_aside(self.compared[item]), GRAMS[-1]))
            if count < MOST * len(wanted):
                continue
            exact = set(_runs(self.compared[item], GRAMS[-1]))
            share = len(exact & held) / len(exact)
            if share >= MOST and set(numbers(self.compared[item])) <= set(said):
                _keep(self.same.setdefault(item, []), _Held(share, origin))
            else:
                _keep(self.other.setdefault(item, []), _Held(count / len(wanted), origin))

    def exposures(self, found: Overlap) -> Iterator[Exposure]:
        matches = {match.item: match for match in found.matches}
        for item in range(len(self.prompts)):
            coverage = tuple(self._coverage(item, n) for n in GRAMS)
            if item in matches:
                match = matches[item]
                yield Exposure(item, "contaminated", match.how, coverage, match.places[:SHOWN])
            elif item in self.same:
                yield Exposure(item, "contaminated", "8-gram", coverage, _places(self.same[item]))
            elif item in self.other:
                yield Exposure(item, "numbers_differ", "", coverage, _places(self.other[item]))
            else:
                yield Exposure(item, "clean", "", coverage, ())

    def _coverage(self, item: int, n: int) -> Coverage:
        shares = []
        for way, as_way in WAYS.items():
            own = set(_runs(as_way(self.prompts[item], self.compared[item]), n))
            shares.append(len(own & self.found[n, way]) / len(own) if own else None)
        return Coverage(n, *shares)


def _keep(texts: list[_Held], new: _Held) -> None:
    """Keep the texts that hold the most, the earlier ones of equals."""
    texts.append(new)
    texts[:] = nlargest(SHOWN, texts, key=lambda one: one.share)


def _places(texts: Sequence[_Held]) -> tuple[Origin, ...]:
    return tuple(one.origin for one in texts)


def _runs(text: Words, n: int) -> Iterator[Words]:
    return (text[start : start + n] for start in range(len(text) - n + 1))
