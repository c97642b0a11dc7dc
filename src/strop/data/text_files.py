"""Rows of text files: JSON lines, JSON, CSV, each as it is or packed with gzip or zstd."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import IO, Any

from strop.data.arrow import zstd_bytes
from strop.data.json_text import parsed
from strop.data.records import FORMS, Row
from strop.errors import DataError
from strop.files import READ_BYTES, read_text
from strop.types import Origin

LONGEST_LINE = 16 << 20
"""Characters: a longer line is no record, and need not fit into memory."""

TEXTS = ("prompt", "completion", "chosen", "rejected")
"""Columns whose cells in a CSV file are texts, even where they look like JSON."""


def json_lines(path: Path) -> Iterator[tuple[Row, Origin]]:
    """One object a line."""
    for number, line in _lines(path):
        origin = Origin(str(path), number)
        yield _object(parsed(line, str(origin)), origin), origin


def json_rows(path: Path) -> Iterator[tuple[Row, Origin]]:
    """The objects of an array, or JSON lines under the name of JSON."""
    if _holds_lines(path):
        yield from json_lines(path)
        return
    values = parsed(_whole(path), str(path), fix="mend the file: one array, or one object a line")
    if not isinstance(values, list):
        named = values if isinstance(values, dict) else {}
        inside = [name for name, value in named.items() if isinstance(value, list)]
        hint = f"; take out what is under `{inside[0][:80]}`" if inside else ""
        raise DataError("expected a JSON array of objects, or one object a line", where=str(path),
                        fix=f"write the records as an array or as JSONL{hint}")  # fmt: skip
    for number, row in enumerate(values, start=1):
        origin = Origin(str(path), number)
        yield _object(row, origin), origin


def csv_rows(path: Path) -> Iterator[tuple[Row, Origin]]:
    """A row of texts for every row below the header; `label` may also be a bool or a number.

    A column without a name (an index that pandas wrote) is left out.
    """
    csv.field_size_limit(LONGEST_LINE)
    with _text(path, newline="") as stream:
        reader = csv.reader(stream, strict=True)
        names: list[str] | None = None
        while True:
            origin = Origin(str(path), reader.line_num + 1)
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise DataError(
                    f"broken CSV: {error}", where=str(origin), fix="quote cells that hold quotes"
                ) from None
            if cells is None:
                return
            if not cells:
                continue
            if names is None:
                names = _header(cells, origin)
            else:
                yield _csv_row(names, cells, origin), origin


def _header(cells: list[str], origin: Origin) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise DataError(f"two columns are named {twice[0]!r}", where=str(origin), fix="keep one")
    if len(names) == 1 and any(mark in names[0] for mark in ";\t"):
        raise DataError("the columns are not separated by commas", where=str(origin),
                        fix="save the file with commas between the cells")  # fmt: skip
    return names


def _csv_row(names: list[str], cells: list[str], origin: Origin) -> Row:
    if len(cells) != len(names):
        raise DataError(f"the row has {len(cells)} cells, the header {len(names)}",
                        where=str(origin),
                        fix="quote cells that hold commas or new lines")  # fmt: skip
    row: dict[str, Any] = {n: cell for n, cell in zip(names, cells, strict=True) if n}
    if "label" in row:
        row["label"] = _label(row["label"])
    for name in TEXTS:
        if _looks_like_messages(row.get(name, "")):
            raise DataError(
                f"the cell `{name}` holds messages, but in CSV only `messages` is read as a list",
                where=str(origin),
                fix="write chat records as JSONL or Parquet",
            )
    return row


def _label(cell: str) -> Any:
    """`True` as a bool, `0.5` as a number, an empty cell as null, anything else as it is."""
    folded = cell.strip().lower()
    if folded in ("true", "false", ""):
        return {"true": True, "false": False, "": None}[folded]
    try:
        return float(folded)
    except ValueError:
        return cell


def _looks_like_messages(cell: str) -> bool:
    return cell.startswith("[{") and "role" in cell[:20]


def _holds_lines(path: Path) -> bool:
    """Whether the first line that is not blank is an object, with more lines or a record in it."""
    try:
        first, *more = islice(_lines(path), 2)
        row = json.loads(first[1])
    except (DataError, ValueError, RecursionError):  # an array in one long line, or no JSON at all
        return False
    return isinstance(row, dict) and (bool(more) or _is_record(row))


def _is_record(row: Row) -> bool:
    """A lone object may also hold columns or a whole data set."""
    forms = [form for kind in FORMS.values() for form in kind]
    return any(
        all(isinstance(row.get(name), str | bool) or _has_roles(row.get(name)) for name in form)
        for form in forms
    )


def _has_roles(value: Any) -> bool:
    value = value.get("messages") if isinstance(value, dict) else value
    return isinstance(value, list) and all(isinstance(v, dict) and "role" in v for v in value)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    number = 0
    with _text(path) as stream:
        while line := _read_line(stream, path, number + 1):
            number += 1
            if line.strip():
                yield number, line


def _read_line(stream: IO[str], path: Path, number: int) -> str:
    try:
        line = stream.readline(LONGEST_LINE)
    except UnicodeDecodeError:
        raise DataError(
            "not UTF-8 text", where=f"{path}:{number}", fix="save the file as UTF-8"
        ) from None
    if len(line) == LONGEST_LINE:
        raise DataError(
            f"the line is longer than {LONGEST_LINE >> 20} million characters",
            where=f"{path}:{number}",
            fix="write one record a line, or drop the line",
        )
    return line


def _whole(path: Path) -> str:
    if path.suffix == ".json":
        return read_text(path, DataError)
    with _text(path) as stream:
        held = stream.read(READ_BYTES)
    if len(held) == READ_BYTES:
        raise DataError(f"the file is longer than {READ_BYTES >> 30} GiB", where=str(path),
                        fix="write it as JSONL")  # fmt: skip
    return held


@contextmanager
def _text(path: Path, newline: str | None = None) -> Iterator[IO[str]]:
    """The text of a file, unpacked. Raises `DataError` for what cannot be read."""
    try:
        with _bytes(path) as held, TextIOWrapper(held, "utf-8-sig", newline=newline) as stream:
            yield stream
    except UnicodeDecodeError:
        raise DataError("not UTF-8 text", where=str(path), fix="save the file as UTF-8") from None
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from None


def _bytes(path: Path) -> Any:
    if path.suffix == ".zst":
        return zstd_bytes(path)
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def unreadable(path: Path, error: Exception) -> DataError:
    """A file that is there and gives no bytes."""
    return DataError(
        f"cannot read the file: {error}",
        where=str(path),
        fix="check its permissions, and whether it was copied whole",
    )


def _object(row: Any, origin: Origin) -> Row:
    if not isinstance(row, dict):
        is_list = isinstance(row, list)
        raise DataError(
            "the line is not a JSON object", where=str(origin),
            fix='write {"prompt": ...}' + ("; an array belongs into a .json file" * is_list),
        )  # fmt: skip
    return row
