"""One pass over the records: numbers of every row, a sample of whole ones, counts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from strop.curate.check.ledger import Ledger, kind_of
from strop.data.bad_rows import Sieve
from strop.data.forms import Row
from strop.data.records import any_record
from strop.data.sources import stream
from strop.recipe.train.data import DataSource
from strop.types import Origin, Record

SAMPLED = 10_000
"""Whole records that are kept to look at their texts: an area under the curve is then known to
within 0.01. They are drawn with equal chance from all rows, the same for the same files."""

Pattern = tuple[Hashable | None, ...]


@dataclass(slots=True)
class Sample:
    """An even draw of `size` records, in the order of the data (Vitter 1985, algorithm R)."""

    size: int = SAMPLED
    seen: int = 0
    _kept: list[tuple[int, Record]] = field(default_factory=list)
    _random: random.Random = field(default_factory=lambda: random.Random(0))

    def add(self, record: Record) -> None:
        if len(self._kept) < self.size:
            self._kept.append((self.seen, record))
        elif (place := self._random.randrange(self.seen + 1)) < self.size:
            self._kept[place] = (self.seen, record)
        self.seen += 1

    def records(self) -> list[Record]:
        return [record for _, record in sorted(self._kept, key=lambda one: one[0])]


@dataclass(slots=True)
class Annotations:
    """The labels of several annotators, counted by pattern: `{("A", "A", "B"): 12}`.

    `names` are columns, a label each, or one column that holds a list of labels. `None`, an empty
    text and a column that a row lacks are missing labels.
    """

    names: Sequence[str]
    patterns: Counter[Pattern] = field(default_factory=Counter)

    def add(self, row: Row) -> None:
        if not self.names:
            return
        given = [row.get(name) for name in self.names]
        if len(given) == 1 and isinstance(given[0], list):
            given = given[0]
        labels = tuple(map(_label, given))
        if any(label is not None for label in labels):
            self.patterns[labels] += 1


def _label(value: Any) -> Hashable | None:
    """A label as a text, so that 1 of one file and "1" of another are one."""
    if value is None or value == "" or value != value:  # a NaN is how tables say "missing"
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


@dataclass(slots=True)
class Survey:
    """Everything that the families of findings look at.

    `watchers` see every record as it passes (what renders it, for one); `rows` counts all rows,
    the unusable ones among them.
    """

    annotations: Annotations
    watchers: Sequence[Callable[[Record], None]] = ()
    ledger: Ledger = field(default_factory=Ledger)
    sample: Sample = field(default_factory=Sample)
    kinds: Counter[str] = field(default_factory=Counter)
    sieves: list[Sieve] = field(default_factory=list)

    def passing(self, sources: Sequence[DataSource]) -> Iterator[Record]:
        """The records of all sources, each noted on its way."""
        for source in sources:
            sieve = Sieve(source.name, max_bad=1.0)  # a check reports bad rows and refuses none
            self.sieves.append(sieve)
            for record in stream(source, self._parse, sieve):
                self._note(record)
                yield record

    def _parse(self, row: Row, origin: Origin) -> Record:
        self.annotations.add(row)
        return any_record(row, origin)

    def _note(self, record: Record) -> None:
        self.ledger.add(record)
        self.sample.add(record)
        self.kinds[kind_of(record)] += 1
        for watch in self.watchers:
            watch(record)

    @property
    def rows(self) -> int:
        return sum(sieve.rows for sieve in self.sieves)

    @property
    def bad(self) -> int:
        return sum(sieve.unusable for sieve in self.sieves)


def share(part: float, whole: float) -> float:
    """0 of nothing."""
    return part / whole if whole else 0.0


def quantiles(values: Sequence[float], at: Sequence[float] = (0.05, 0.5, 0.95, 1.0)) -> list[float]:
    """Values at these shares of their order: `quantiles([3, 1, 2], [0, 0.5]) == [1, 2]`."""
    ordered = sorted(values)
    return [ordered[min(len(ordered) - 1, int(q * len(ordered)))] for q in at] if ordered else []


Figures = Mapping[str, Any]
