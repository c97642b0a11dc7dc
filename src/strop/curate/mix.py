"""One file mixed from several, in exact shares."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from heapq import nsmallest
from pathlib import Path
from typing import Any

from strop.curate.contents import content_hash, draw
from strop.curate.manifest import Output, records_of, writing_records
from strop.data.bad_rows import BadRow
from strop.errors import DataError, UsageError
from strop.recipe.curate import MixSettings
from strop.recipe.train.data import DataSource
from strop.types import Record


@dataclass(frozen=True, slots=True)
class MixedInput:
    """`MixedInput("a.jsonl", have=100, rows=700, times=7)`: of `have` records `rows` were written,
    none of them more than `times` times."""

    name: str
    have: int
    rows: int
    times: int


@dataclass(frozen=True, slots=True)
class MixReport:
    """What came from where."""

    inputs: tuple[MixedInput, ...]

    def plain(self) -> dict[str, Any]:
        return asdict(self) | {"rows": self.rows}

    @property
    def rows(self) -> int:
        return sum(one.rows for one in self.inputs)

    @property
    def sentence(self) -> str:
        said = [
            f"{one.rows} of {one.name}"
            + (f" (upsampled: its {one.have} records up to {one.times} times)"
               if one.times > 1 else "")
            for one in self.inputs
        ]  # fmt: skip
        return f"{self.rows} rows: {', '.join(said)}"


def mix(
    inputs: Sequence[DataSource],
    output: Path | None,
    settings: MixSettings,
    *,
    overwrite: bool = False,
) -> MixReport:
    """Write `rows` records, from each input its share of them to the nearest record.

    Of an input with more records than its share a draw is taken that does not depend on their
    order. One with fewer is repeated as a whole, and the rest of its share is drawn. The records of
    all inputs are spread evenly over the file; each input keeps its own order. Everything is read
    twice and nothing is held but hashes.
    """
    if len(settings.shares) != len(inputs):
        raise UsageError(f"{len(inputs)} inputs and {len(settings.shares)} shares",
                         fix="give every input a share")  # fmt: skip
    hashes = [_hashes(source) for source in inputs]
    _expect_one_kind(inputs, [kind for kind, _ in hashes])
    have = [len(found) for _, found in hashes]
    rows = _rows_of(have, settings)
    given = settings.plain()
    with writing_records(output, "mix", inputs, given, overwrite=overwrite) as written:
        streams = [
            _repeated(source, _times(found, wanted, settings.seed), written)
            for source, (_, found), wanted in zip(inputs, hashes, rows, strict=True)
        ]
        for record in _spread(streams, rows):
            written.keep(record)
    return MixReport(
        tuple(
            MixedInput(source.name, count, wanted, math.ceil(wanted / count))
            for source, count, wanted in zip(inputs, have, rows, strict=True)
        )
    )


def _hashes(source: DataSource) -> tuple[str, list[str]]:
    """The kind of a source's records, and the hash of each of them."""
    kinds: dict[str, Record] = {}
    found = []
    for record in records_of([source], Output(None)):
        kinds.setdefault(type(record).__name__.lower(), record)
        found.append(content_hash(record))
    if not found:
        raise DataError("there are no records to mix", where=source.name, fix="drop this input")
    if len(kinds) > 1:
        (one, _), (other, example), *_ = kinds.items()
        raise DataError(f"a {other} among records that begin with a {one}",
                        where=str(example.origin), fix="mix records of one kind")  # fmt: skip
    return next(iter(kinds)), found


def _expect_one_kind(inputs: Sequence[DataSource], kinds: Sequence[str]) -> None:
    for source, kind in zip(inputs, kinds, strict=True):
        if kind != kinds[0]:
            raise DataError(
                f"holds {kind} records, but {inputs[0].name} {kinds[0]} records: no method learns "
                "from one file of both",
                where=source.name,
                fix="mix them in the recipe: list both under `data`, each with a weight",
            )


def _rows_of(have: Sequence[int], settings: MixSettings) -> list[int]:
    """Whole rows that add up exactly: the largest remainders are rounded up (Hamilton's rule)."""
    whole = sum(settings.shares)
    shares = [share / whole for share in settings.shares]
    total = settings.rows or _without_repeats(have, shares)
    exact = [share * total for share in shares]
    rows = [math.floor(value + 1e-9) for value in exact]
    by_remainder = sorted(range(len(rows)), key=lambda n: (rows[n] - exact[n], n))
    for number in by_remainder[: total - sum(rows)]:
        rows[number] += 1
    return rows


def _without_repeats(have: Sequence[int], shares: Sequence[float]) -> int:
    scarcest = min(count / share for count, share in zip(have, shares, strict=True))
    return max(1, math.floor(scarcest + 1e-9))


def _times(hashes: Sequence[str], wanted: int, seed: int) -> list[int]:
    """How often each record is written; those of the last, partial round are drawn by hash."""
    rounds, rest = divmod(wanted, len(hashes))
    drawn = nsmallest(rest, range(len(hashes)), key=lambda n: (draw(seed, hashes[n]), n))
    times = [rounds] * len(hashes)
    for number in drawn:
        times[number] += 1
    return times


def _repeated(source: DataSource, times: Sequence[int], written: Output) -> Iterator[Record]:
    """The records of a source, round after round; those that are never written are dropped."""
    for number, record in enumerate(records_of([source], written)):
        if times[number] == 0:
            bad = BadRow("beyond_share", "not drawn for the mixture", record.origin, excess=True)
            written.drop(bad, record)
        else:
            yield record
    for further in range(2, max(times) + 1):
        again = records_of([source], Output(None))
        yield from (record for n, record in enumerate(again) if times[n] >= further)


def _spread(streams: Sequence[Iterator[Record]], rows: Sequence[int]) -> Iterator[Record]:
    """The records of all streams, at every place from the one that lags most behind its share."""
    total = sum(rows)
    given = [0] * len(rows)
    for place in range(1, total + 1):
        due = max(
            (number for number in range(len(rows)) if given[number] < rows[number]),
            key=lambda number: (rows[number] * place / total - given[number], -number),
        )
        given[due] += 1
        yield next(streams[due])
    for stream in streams:  # what follows the last record that is written is still to be dropped
        yield from stream
