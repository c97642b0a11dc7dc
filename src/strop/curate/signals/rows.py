"""Rows of exports: out of their envelopes, recognised, their fields accounted for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from strop.curate.signals.interaction import Found
from strop.curate.signals.sources.table import SOURCES, source_of
from strop.curate.signals.sources.values import HOLDERS, is_message, objects
from strop.data.bad_rows import Sieve
from strop.data.forms import Row
from strop.data.reading.folders import kind_of
from strop.data.reading.text_files import json_object
from strop.data.records import columns_in, renamed
from strop.data.sources import rows_of
from strop.errors import DataError
from strop.recipe.train.data import DataSource
from strop.types import Origin

ENVELOPES = {"data", "traces", "runs", "observations", "scores", "spans", "feedback", "feedbacks",
             "results", "items", "tickets", "rows", "records"}  # fmt: skip
"""Keys of an object that only holds rows, as an API's answer does."""

PAGES = {"meta", "pagination", "cursors", "next", "next_page_token", "next_cursor", "count",
         "total", "page", "limit", "has_more", "object", "version", "exported_at"}  # fmt: skip
"""Keys beside them that say nothing of the rows."""

UNWANTED = ("content_part",)
"""Kinds of faults of rows that are well-formed, only of no use: images, audio, files."""

HELD = {*HOLDERS, "choices", "generations", "tools"}
"""Keys of an application's own object whose values are read."""

NOTHING: tuple[Any, ...] = (None, "", [], {})

MOST_PATHS, DEEPEST = 2000, 4
"""Different unknown fields that are counted by name, and levels that are looked into."""


@dataclass(slots=True)
class Sighting:
    """What was seen while rows were read: sources by file, and unknown fields by source.

    `silent` rows hold nothing to learn from (spans of tools); `unwanted` ones are well-formed
    interactions of no use (images).
    """

    names: bool = True
    """Whether fields are looked at; they are the same in a second reading."""
    recognised: dict[str, Counter[str]] = field(default_factory=dict)
    unknown: dict[str, Counter[str]] = field(default_factory=dict)
    silent: int = 0
    unwanted: int = 0


def found_in(
    source: DataSource, name: str | None, sieve: Sieve, seen: Sighting
) -> Iterator[tuple[Found | DataError, Origin]]:
    """What the rows of a data source hold, in order; an error for a row of no use.

    `name` says which source of the table it is; else every row is recognised by its fields. Broken
    rows go to the sieve.
    """
    for given, origin in _raw(source):
        for row in _taken_apart(given, source, name, origin, seen):
            sieve.look()
            try:
                if isinstance(row, DataError):
                    raise row
                found = list(SOURCES[row.source].read(row.row, origin))
            except DataError as error:
                if error.kind in UNWANTED:
                    yield error, origin
                else:
                    sieve.drop(error, origin)
                continue
            seen.silent += not found
            yield from ((one, origin) for one in found)


@dataclass(frozen=True, slots=True)
class _Known:
    """A row and the source it is of."""

    source: str
    row: Row


def _taken_apart(
    given: Row | DataError, source: DataSource, name: str | None, origin: Origin, seen: Sighting
) -> Iterator[_Known | DataError]:
    """The rows that a row holds, each with its source; an error in the place of what is none."""
    if isinstance(given, DataError):
        yield given
        return
    try:
        rows = list(_enveloped(renamed(given, source.columns, origin)))
    except DataError as error:
        yield error
        return
    for row in rows:
        known = name or source_of(row)
        if known is None:
            yield _unrecognised(row, origin)
            continue
        seen.recognised.setdefault(origin.path, Counter())[known] += 1
        counts = seen.unknown.setdefault(known, Counter())
        for one in SOURCES[known].unwrap(row):
            if seen.names:
                _count_unknown(one, SOURCES[known].fields, counts)
            yield _Known(known, one)


def _unrecognised(row: Row, origin: Origin) -> DataError:
    return DataError(
        f"the row is of no known source: found {{{columns_in(row)}}}",
        where=str(origin),
        fix=f"name it with --source ({', '.join(SOURCES)}), or rename columns with --column",
        kind="unrecognised",
    )


def _raw(source: DataSource) -> Iterator[tuple[Row | DataError, Origin]]:
    """Rows as their file has them; a JSON file may also hold one object."""
    path = Path(source.path or "")
    if path.is_file() and kind_of(path) == ".json":
        alone = json_object(path)
        if alone is not None:
            yield alone, Origin(str(path), 1)
            return
    yield from rows_of(source)


def _enveloped(row: Row) -> Iterator[Row]:
    """The rows that an object holds, if it holds nothing else; the object itself if it does."""
    keys = ENVELOPES & row.keys()
    if keys and not row.keys() - keys - PAGES and all(isinstance(row[k], list) for k in keys):
        for key in sorted(keys):
            for one in objects(row[key]):
                yield from _enveloped(one)
    else:
        yield row


def _count_unknown(row: Row, fields: frozenset[str], counts: Counter[str]) -> None:
    for path in unknown_paths(row, fields):
        if path in counts or len(counts) < MOST_PATHS:
            counts[path] += 1
        else:
            counts["(further fields)"] += 1


def unknown_paths(row: Row, fields: frozenset[str]) -> Iterator[str]:
    """Dotted paths of the values of a row that no source reads: `metadata.plan`.

    Objects are looked into; lists are named as a whole. Null and empty values say nothing.
    """
    yield from _unknown(row, "", fields, 0)


@lru_cache
def _opened(fields: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Beginnings of paths that are known, and the places that known paths lie under."""
    beginnings = tuple(sorted(one[:-1] for one in fields if one.endswith("*")))
    parts = [one.split(".") for one in fields]
    return beginnings, frozenset(".".join(p[:n]) for p in parts for n in range(1, len(p)))


def _unknown(
    row: Mapping[str, Any], above: str, fields: frozenset[str], level: int
) -> Iterator[str]:
    beginnings, places = _opened(fields)
    for key, value in row.items():
        path = f"{above}{key}"
        if path in fields or value in NOTHING or path.startswith(beginnings):
            continue
        if f"{path}{{}}" in fields:
            if isinstance(value, Mapping) and not is_message(value):
                yield from _unheld(value, path, fields)
        elif isinstance(value, Mapping) and level < DEEPEST:
            yield from _unknown(value, f"{path}.", fields, level + 1)
        elif path not in places:  # a text where most write an object
            yield path


def _unheld(value: Mapping[str, Any], path: str, fields: frozenset[str]) -> Iterator[str]:
    """What stands beside the texts of an application's own object."""
    for key, one in value.items():
        below = f"{path}.{key}"
        if key not in HELD and below not in fields and one not in NOTHING:
            yield below
