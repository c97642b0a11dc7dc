"""Reading rows from the files and folders that users have."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from strop.data.arrow import parquet_rows, saved_rows
from strop.data.folders import DataFiles, find, kind_of
from strop.data.records import RecordT, Row
from strop.data.text_files import csv_rows, json_lines, json_rows, unreadable
from strop.errors import DataError
from strop.files import sha256_of, sha256_of_hashes
from strop.types import Origin

READERS: dict[str, Callable[[Path], Iterator[tuple[Row, Origin]]]] = {
    ".jsonl": json_lines,
    ".json": json_rows,
    ".csv": csv_rows,
    ".parquet": parquet_rows,
}


def read(
    paths: Sequence[str | Path],
    parse: Callable[[Row, Origin], RecordT],
    *,
    held_out: bool = False,
) -> list[RecordT]:
    """All records of these files or folders, in order. The first bad line raises `DataError`.

    `held_out` data is measured on: then a folder with several splits is never guessed at.
    """
    found = [find(Path(path), held_out=held_out) for path in paths]
    records = [parse(row, origin) for one in found for row, origin in _rows(one)]
    if not records:
        raise DataError("the data holds no records", where=", ".join(map(str, paths)),
                        fix="add records, or take the file out")  # fmt: skip
    return records


def rows(path: Path) -> Iterator[tuple[Row, Origin]]:
    """Rows with their origin; the line of a Parquet or `datasets` row is its number from 1. Of a
    folder in splits `train` is read, with a warning that says so."""
    return _rows(find(path))


def _rows(found: DataFiles) -> Iterator[tuple[Row, Origin]]:
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


def data_hash(paths: Sequence[str | Path]) -> str:
    """Hash of the bytes of all files that are read, 16 hex digits."""
    files = (file for path in paths for file in find(Path(path)).files)
    return sha256_of_hashes(("", _readable_hash(file)) for file in files)


def _readable_hash(file: Path) -> str:
    try:
        return sha256_of(file)
    except OSError as error:
        raise unreadable(file, error) from None
