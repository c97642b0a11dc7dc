"""Reads rows of text files: JSON lines, JSON, CSV, plain or packed with gzip or zstd."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from itertools import count, islice
from pathlib import Path
from typing import IO, Any

from strop.data.forms import Row, form_of
from strop.data.json_text import parsed
from strop.data.reading.arrow import zstd_bytes
from strop.data.records import COLUMNS
from strop.errors import DataError
from strop.files import READ_BYTES, read_text
from strop.types import Origin

LONGEST_LINE = 16 << 20
"""Bytes of a line; a longer line is no record, and is not read into memory."""

Read = tuple[Row | DataError, Origin]
"""A row with its origin, or the error of the line there."""

TEXTS = ("prompt", "completion", "chosen", "rejected")
"""Columns whose cells in a CSV file are text, even if they look like JSON."""


def json_lines(path: Path) -> Iterator[Read]:
    """Rows of JSON lines: one object per line."""
    for number, line in _lines(path):
        origin = Origin(str(path), number)
        yield (line if isinstance(line, DataError) else _row(line, origin)), origin


def _row(line: str, origin: Origin) -> Row | DataError:
    try:
        return _object(parsed(line, str(origin)), origin)
    except DataError as error:
        return error


def json_rows(path: Path) -> Iterator[Read]:
    """The objects of a JSON array, or of JSON lines in a .json file."""
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
        yield (row if isinstance(row, dict) else _no_object(row, origin)), origin


def json_object(path: Path) -> Row | None:
    """The single object of a JSON file; `None` if it holds an array or lines."""
    with _text(path) as stream:
        begins = stream.read(1000).lstrip()[:1]
    if begins != "{" or _holds_lines(path):
        return None
    value = parsed(_whole(path), str(path), fix="mend the file: one array, or one object a line")
    return value if isinstance(value, dict) else None


def csv_rows(path: Path) -> Iterator[Read]:
    """A row of texts for every line below the header; `label` may also be a bool or a number.

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


def _csv_row(names: list[str], cells: list[str], origin: Origin) -> Row | DataError:
    if len(cells) != len(names):
        return DataError(
            f"the row has {len(cells)} cells, the header {len(names)}",
            where=str(origin),
            fix="quote cells that hold commas or new lines",
            kind="cells",
        )
    row: dict[str, Any] = {n: cell for n, cell in zip(names, cells, strict=True) if n}
    if "label" in row:
        row["label"] = _label(row["label"])
    for name in TEXTS:
        if _looks_like_messages(row.get(name, "")):
            return DataError(
                f"the cell `{name}` holds messages, but in CSV only `messages` is read as a list",
                where=str(origin),
                fix="write chat records as JSONL or Parquet",
                kind="messages",
            )
    return row


def _label(cell: str) -> Any:
    """`True` as a bool, `0.5` as a number, an empty cell as null, anything else unchanged."""
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
        (_, first), *more = islice(_lines(path), 2)
    except (DataError, ValueError):  # no bytes, or no lines
        return False
    try:
        row = None if isinstance(first, DataError) else json.loads(first)
    except (ValueError, RecursionError):  # an array over several lines, or no JSON at all
        return False
    return isinstance(row, dict) and (bool(more) or _is_record(row))


def _is_record(row: Row) -> bool:
    """A lone object may also hold columns or a whole data set."""
    forms = [form for kind in COLUMNS.values() for form in kind]
    return form_of(row) is not None or any(
        all(isinstance(row.get(name), str | bool) or _has_roles(row.get(name)) for name in form)
        for form in forms
    )


def _has_roles(value: Any) -> bool:
    value = value.get("messages") if isinstance(value, dict) else value
    return isinstance(value, list) and all(isinstance(v, dict) and "role" in v for v in value)


def _lines(path: Path) -> Iterator[tuple[int, str | DataError]]:
    """Nonblank lines with their numbers; a line that is not text gives an error."""
    with _opened(path) as stream:
        for number in count(1):
            line = stream.readline(LONGEST_LINE)
            if not line:
                return
            if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                _skip_line(stream)
                yield number, _too_long(path, number)
                continue
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                yield number, _no_utf8(f"{path}:{number}")
                continue
            if text.strip():
                yield number, text


def _skip_line(stream: IO[bytes]) -> None:
    """Skip to the end of a line, without keeping it in memory."""
    while True:
        more = stream.readline(LONGEST_LINE)
        if len(more) < LONGEST_LINE or more.endswith(b"\n"):
            return


def _too_long(path: Path, number: int) -> DataError:
    return DataError(
        f"the line is longer than {LONGEST_LINE >> 20} million bytes",
        where=f"{path}:{number}",
        fix="write one record a line, or drop the line",
        kind="long_line",
    )


def _no_utf8(where: str) -> DataError:
    return DataError("not UTF-8 text", where=where, fix="save the file as UTF-8", kind="encoding")


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
        with _opened(path) as held, TextIOWrapper(held, "utf-8-sig", newline=newline) as stream:
            yield stream
    except UnicodeDecodeError:
        raise _no_utf8(str(path)) from None


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked. Raises `DataError` for what cannot be read."""
    try:
        with _bytes(path) as held:
            yield held
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from None


def _bytes(path: Path) -> Any:
    if path.suffix == ".zst":
        return zstd_bytes(path)
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def unreadable(path: Path, error: Exception) -> DataError:
    """The error for a file that exists but cannot be read."""
    return DataError(
        f"cannot read the file: {error}",
        where=str(path),
        fix="check its permissions, and whether it was copied whole",
    )


def _object(row: Any, origin: Origin) -> Row:
    if not isinstance(row, dict):
        raise _no_object(row, origin)
    return row


def _no_object(row: Any, origin: Origin) -> DataError:
    is_list = isinstance(row, list)
    return DataError(
        "the line is not a JSON object",
        where=str(origin),
        fix='write {"prompt": ...}' + ("; an array belongs into a .json file" * is_list),
        kind="no_object",
    )
