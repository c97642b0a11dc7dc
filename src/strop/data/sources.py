"""Reads records from files, folders and hub data sets."""

from __future__ import annotations

import heapq
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from strop.data.bad_rows import MAX_BAD, Sieve, counted, no_records
from strop.data.forms import Row, form_name
from strop.data.reading.arrow import hub_files, hub_rows, parquet_rows, saved_rows
from strop.data.reading.folders import DataFiles, find, kind_of
from strop.data.reading.text_files import Read, csv_rows, json_lines, json_rows, unreadable
from strop.data.records import RecordT, renamed
from strop.errors import DataError
from strop.files import digest64, sha256_of, sha256_of_hashes
from strop.recipe.train.data import DataSource
from strop.types import Origin

Parse = Callable[[Row, Origin], RecordT]

READERS: dict[str, Callable[[Path], Iterator[Read]]] = {
    ".jsonl": json_lines,
    ".json": json_rows,
    ".csv": csv_rows,
    ".parquet": parquet_rows,
}


def read(
    sources: Sequence[DataSource], parse: Parse[RecordT], *, held_out: bool = False
) -> list[RecordT]:
    """All records of these sources, in order.

    Bad rows are left out with a warning, up to the share that a source allows: `max_bad`, by
    default 1 % of training data and none of `held_out` data. For `held_out` data the split of a
    folder is never guessed. Raises `DataError`.
    """
    records: list[RecordT] = []
    for source in sources:
        sieve = sieve_of(source, held_out=held_out)
        records += stream(source, parse, sieve, held_out=held_out)
        sieve.expect_clean()
        if sieve.dropped:
            warnings.warn(f"{source.name}: left out {counted(sieve.dropped)}", stacklevel=2)
    if not records:
        raise no_records([source.name for source in sources])
    return records


def at(path: str | Path) -> DataSource:
    """A file, folder or pattern as a source."""
    return DataSource(path=str(path))


def sieve_of(source: DataSource, *, held_out: bool = False) -> Sieve:
    """A sieve for the bad rows of this source, with the share that it allows."""
    allowed = 0.0 if held_out else MAX_BAD
    return Sieve(source.name, allowed if source.max_bad is None else source.max_bad)


def stream(
    source: DataSource, parse: Parse[RecordT], sieve: Sieve, *, held_out: bool = False
) -> Iterator[RecordT]:
    """The records of one source, one by one; `sieve` counts the rows and keeps the bad ones.

    With `limit` and a `shuffle_seed`, the records whose positions have the lowest hashes under the
    seed are kept, in the order of the source.
    """
    records = _parsed(source, parse, sieve, held_out)
    if source.limit is None:
        yield from records
    elif source.shuffle_seed is None:
        for count, record in enumerate(records, start=1):
            yield record
            if count == source.limit:
                return
    else:
        ranked = (
            (_rank(source.shuffle_seed, place), place, record)
            for place, record in enumerate(records)
        )
        drawn = heapq.nsmallest(source.limit, ranked, key=lambda one: one[:2])
        yield from (record for _, _, record in sorted(drawn, key=lambda one: one[1]))


def _rank(seed: int, place: int) -> int:
    return digest64(f"{seed} {place}")


def _parsed(
    source: DataSource, parse: Parse[RecordT], sieve: Sieve, held_out: bool
) -> Iterator[RecordT]:
    for row, origin in rows_of(source, held_out=held_out):
        sieve.look()
        if isinstance(row, DataError):
            sieve.drop(row, origin)
            continue
        try:
            named = renamed(row, source.columns, origin)
            record = parse(named, origin)
        except DataError as error:
            sieve.drop(error, origin)
            continue
        sieve.forms[form_name(named)] += 1
        yield record


def rows_of(source: DataSource, *, held_out: bool = False) -> Iterator[Read]:
    """The raw rows of a source; an invalid line gives an error."""
    if source.hub is not None:
        return hub_rows(source)
    return _rows(find(Path(source.path or ""), held_out=held_out))


def first_row(source: DataSource) -> Row | None:
    """The first valid row of a source, with strop's names for its columns."""
    for row, origin in rows_of(source):
        if not isinstance(row, DataError):
            return renamed(row, source.columns, origin)
    return None


def rows(path: Path) -> Iterator[tuple[Row, Origin]]:
    """Rows with their origins; the first bad line raises `DataError`. The line of a Parquet or
    `datasets` row is its number from 1. Of a folder with splits, `train` is read, with a
    warning."""
    for row, origin in _rows(find(path)):
        if isinstance(row, DataError):
            raise row
        yield row, origin


def _rows(found: DataFiles) -> Iterator[Read]:
    if found.others:
        folder = (found.saved or found.files[0]).parent
        warnings.warn(
            f"{folder}: reading the split {found.split}, not {', '.join(found.others)}",
            stacklevel=3,
        )
    if found.saved is not None:
        yield from saved_rows(found.saved)
        return
    for file in found.files:
        yield from READERS[kind_of(file)](file)


def rows_hash(source: DataSource) -> str:
    """Hash of the bytes of a source, 16 hex digits."""
    return data_hash([source.path or ""]) if source.hub is None else _hash(hub_files(source))


def rows_size(source: DataSource) -> int:
    """Size of a source in bytes on disk."""
    files = hub_files(source) if source.hub is not None else find(Path(source.path or "")).files
    return sum(file.stat().st_size for file in files)


def data_hash(paths: Sequence[str | Path]) -> str:
    """Hash of the bytes of all files that are read, 16 hex digits."""
    return _hash(file for path in paths for file in find(Path(path)).files)


def _hash(files: Iterable[Path]) -> str:
    return sha256_of_hashes(("", _readable_hash(file)) for file in files)


def _readable_hash(file: Path) -> str:
    try:
        return sha256_of(file)
    except OSError as error:
        raise unreadable(file, error) from None
