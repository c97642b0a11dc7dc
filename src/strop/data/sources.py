"""Reading rows from JSONL, JSON, Parquet and `datasets` folders."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from strop.data.records import RecordT, Row
from strop.errors import DataError
from strop.types import Origin

ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".parquet")


def read(paths: Sequence[str | Path], parse: Callable[[Row, Origin], RecordT]) -> list[RecordT]:
    """All records of these files or folders, in order. The first bad line raises `DataError`."""
    records = [parse(row, origin) for path in paths for row, origin in rows(Path(path))]
    if not records:
        raise DataError("the data holds no records", where=", ".join(map(str, paths)))
    return records


def rows(path: Path) -> Iterator[tuple[Row, Origin]]:
    """Rows with their origin; the line of a Parquet or `datasets` row is its number from 1."""
    if (path / "state.json").exists():
        yield from _saved_dataset(path)
        return
    for file in files(path):
        if file.name.endswith(".parquet"):
            yield from _parquet(file)
        elif file.name.endswith(".json"):
            yield from _json_array(file)
        else:
            yield from _jsonl(file)


def files(path: Path) -> list[Path]:
    """The data files a path stands for: itself, or what a folder holds, sorted by name."""
    if not path.exists():
        raise DataError("no such file or folder", where=str(path), fix="check the path in `data`")
    if path.is_file():
        if not path.name.endswith(ENDINGS):
            raise DataError(
                "unknown kind of data file", where=str(path), fix=f"use {', '.join(ENDINGS)}"
            )
        return [path]
    if (path / "state.json").exists():
        return sorted(file for file in path.rglob("*") if file.is_file())
    found = sorted(file for file in path.iterdir() if file.name.endswith(ENDINGS))
    if not found:
        raise DataError(
            "the folder holds no data files", where=str(path), fix=f"add {', '.join(ENDINGS)}"
        )
    return found


def data_hash(paths: Sequence[str | Path]) -> str:
    """Hash of the bytes of all files, 16 hex digits."""
    digest = hashlib.sha256()
    for path in paths:
        for file in files(Path(path)):
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _jsonl(path: Path) -> Iterator[tuple[Row, Origin]]:
    for number, line in _lines(path):
        origin = Origin(str(path), number)
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(
                f"broken JSON: {error}", where=str(origin), fix="mend or drop the line"
            ) from None
        yield _object(row, origin), origin


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    opener = gzip.open if path.name.endswith(".gz") else open
    number = 0
    try:
        with opener(path, "rt", encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield number, line
    except UnicodeDecodeError:
        raise DataError(
            "not UTF-8 text", where=f"{path}:{number + 1}", fix="save the file as UTF-8"
        ) from None
    except (OSError, EOFError) as error:
        raise DataError(f"cannot read the file: {error}", where=str(path)) from None


def _json_array(path: Path) -> Iterator[tuple[Row, Origin]]:
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"broken JSON: {error}", where=str(path)) from None
    if not isinstance(values, list):
        raise DataError("expected a JSON array of objects", where=str(path), fix="use JSONL")
    for number, row in enumerate(values, start=1):
        origin = Origin(str(path), number)
        yield _object(row, origin), origin


def _saved_dataset(path: Path) -> Iterator[tuple[Row, Origin]]:
    import datasets  # here alone, for the sake of start-up

    for number, row in enumerate(datasets.load_from_disk(str(path)), start=1):
        yield row, Origin(str(path), number)


def _parquet(path: Path) -> Iterator[tuple[Row, Origin]]:
    import pyarrow.parquet  # here alone, for the sake of start-up

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"not a Parquet file: {error}", where=str(path)) from None
    for number, row in enumerate(table.to_pylist(), start=1):
        yield row, Origin(str(path), number)


def _object(row: Any, origin: Origin) -> Row:
    if not isinstance(row, dict):
        raise DataError(
            "the line is not a JSON object", where=str(origin), fix='write {"prompt": ...}'
        )
    return row
