"""Reading rows from JSONL, JSON, Parquet and `datasets` folders."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from strop.data.json_text import parsed
from strop.data.records import RecordT, Row
from strop.errors import DataError
from strop.recipe.files import read_text
from strop.types import Origin

ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".parquet")

LONGEST_LINE = 16 << 20
"""Characters: a longer line is no record, and need not fit into memory."""


def read(paths: Sequence[str | Path], parse: Callable[[Row, Origin], RecordT]) -> list[RecordT]:
    """All records of these files or folders, in order. The first bad line raises `DataError`."""
    records = [parse(row, origin) for path in paths for row, origin in rows(Path(path))]
    if not records:
        raise DataError("the data holds no records", where=", ".join(map(str, paths)),
                        fix="add records, or take the file out")  # fmt: skip
    return records


def rows(path: Path) -> Iterator[tuple[Row, Origin]]:
    """Rows with their origin; the line of a Parquet or `datasets` row is its number from 1."""
    found = files(path)
    if (path / "state.json").exists():
        yield from _saved_dataset(path)
        return
    for file in found:
        if file.name.endswith(".parquet"):
            yield from _parquet(file)
        elif file.name.endswith(".json"):
            yield from _json_array(file)
        else:
            yield from _jsonl(file)


def files(path: Path) -> list[Path]:
    """The data files a path stands for: itself, or what a folder holds, sorted by name.

    Links are followed: a user's data may lie anywhere. Pipes and devices raise `DataError`, since
    what they hold is gone when it is read again.
    """
    try:
        if not path.exists():
            raise DataError("no such file or folder", where=str(path), fix="check the path")
        if (path / "state.json").exists():
            return sorted(file for file in path.rglob("*") if file.is_file())
        found = sorted(_named_as_data(path)) if path.is_dir() else [path]
    except OSError as error:
        raise DataError(f"cannot read it: {error.strerror}", where=str(path),
                        fix="check the path and its permissions") from None  # fmt: skip
    if not found:
        raise DataError(
            "the folder holds no data files", where=str(path), fix=f"add {', '.join(ENDINGS)}"
        )
    for file in found:
        _expect_data(file)
    return found


def _named_as_data(folder: Path) -> Iterator[Path]:
    return (file for file in folder.iterdir() if file.name.endswith(ENDINGS))


def _expect_data(file: Path) -> None:
    if not file.name.endswith(ENDINGS):
        raise DataError(
            "unknown kind of data file", where=str(file), fix=f"use {', '.join(ENDINGS)}"
        )
    if not file.is_file():
        raise DataError("no regular file: a folder, a pipe, a device, or a link to nothing",
                        where=str(file), fix="give a file")  # fmt: skip


def data_hash(paths: Sequence[str | Path]) -> str:
    """Hash of the bytes of all files, 16 hex digits."""
    digest = hashlib.sha256()
    for path in paths:
        for file in files(Path(path)):
            try:
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
            except OSError as error:
                raise _unreadable(file, error) from None
    return digest.hexdigest()[:16]


def _jsonl(path: Path) -> Iterator[tuple[Row, Origin]]:
    for number, line in _lines(path):
        origin = Origin(str(path), number)
        yield _object(parsed(line, str(origin)), origin), origin


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    opener = gzip.open if path.name.endswith(".gz") else open
    number = 0
    try:
        with opener(path, "rt", encoding="utf-8-sig") as stream:
            while line := stream.readline(LONGEST_LINE):
                number += 1
                if len(line) == LONGEST_LINE:
                    raise DataError(
                        f"the line is longer than {LONGEST_LINE >> 20} million characters",
                        where=f"{path}:{number}",
                        fix="write one record a line, or drop the line",
                    )
                if line.strip():
                    yield number, line
    except UnicodeDecodeError:
        raise DataError(
            "not UTF-8 text", where=f"{path}:{number + 1}", fix="save the file as UTF-8"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"cannot read the file: {error}",
        where=str(path),
        fix="check its permissions, and whether it was copied whole",
    )


def _json_array(path: Path) -> Iterator[tuple[Row, Origin]]:
    values = parsed(read_text(path, DataError), str(path), fix="mend the file")
    if not isinstance(values, list):
        raise DataError("expected a JSON array of objects", where=str(path), fix="use JSONL")
    for number, row in enumerate(values, start=1):
        origin = Origin(str(path), number)
        yield _object(row, origin), origin


def _saved_dataset(path: Path) -> Iterator[tuple[Row, Origin]]:
    import datasets  # here alone, for the sake of start-up
    import pyarrow

    try:
        found = datasets.load_from_disk(str(path))
    except (pyarrow.ArrowException, OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"not a saved dataset: {error}", where=str(path),
                        fix="save it again with save_to_disk") from None  # fmt: skip
    if not isinstance(found, datasets.Dataset):
        raise DataError("the folder holds several splits", where=str(path),
                        fix="give the folder of one split below it")  # fmt: skip
    for number, row in enumerate(found, start=1):
        yield row, Origin(str(path), number)


def _parquet(path: Path) -> Iterator[tuple[Row, Origin]]:
    import pyarrow.parquet  # here alone, for the sake of start-up

    try:
        with path.open("rb") as stream:  # by its name, Arrow would read `a=1/b.parquet` otherwise
            table = pyarrow.parquet.read_table(stream)
        table.validate(full=True)
        listed = table.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, LookupError, OverflowError) as error:
        said = str(error).split("\n")[0][:300]
        raise DataError(f"not a Parquet file: {said}", where=str(path),
                        fix="write the file again; it may be cut short") from None  # fmt: skip
    for number, row in enumerate(listed, start=1):
        yield row, Origin(str(path), number)


def _object(row: Any, origin: Origin) -> Row:
    if not isinstance(row, dict):
        raise DataError(
            "the line is not a JSON object", where=str(origin), fix='write {"prompt": ...}'
        )
    return row
