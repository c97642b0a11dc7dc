"""Parts of a data set that do not leak into each other: grouped, stratified or in time's order."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from strop.curate.contents import content_hash, draw, prompt_of, value_at
from strop.curate.manifest import Output, records_of, writing_records
from strop.curate.signals.sources.values import time_of
from strop.data.duplicates import Words, alike_groups, asked, words
from strop.data.forms import Row
from strop.data.records import any_record
from strop.data.sources import Parse
from strop.errors import DataError, UsageError
from strop.files import sha256_hex
from strop.recipe.curate import SplitSettings
from strop.recipe.train.data import DataSource
from strop.types import Document, Origin, Record


@dataclass(frozen=True, slots=True)
class SplitReport:
    """`SplitReport({"train": 80, "test": 20}, {"train": 75, "test": 18}, groups=93, near=4,
    cuts=("2026-03-01T00:00:00+00:00",))`.

    `rows` and `prompts` (different ones) of each part; `groups` that stay together, `near` of the
    prompts are near-duplicates of another; `cuts` are the times that divide the parts.
    """

    rows: Mapping[str, int]
    prompts: Mapping[str, int]
    groups: int
    near: int
    cuts: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def sentence(self) -> str:
        shares = ", ".join(f"{name} {count}" for name, count in self.rows.items())
        cut = f", cut at {' and '.join(self.cuts)}" if self.cuts else ""
        return f"{shares} rows in {self.groups} groups{cut}"


def split(
    inputs: Sequence[DataSource],
    output: Path | None,
    settings: SplitSettings,
    *,
    overwrite: bool = False,
) -> SplitReport:
    """Write every record to `<part>.jsonl` in the folder `output`.

    A record's part depends on the records alone, not on their order. With `time` a group of
    records counts as late as its latest one, so that no part holds anything later than what the
    next part begins with. The inputs are read twice; only their prompts are held in memory.
    """
    if output is not None and output.suffix == ".jsonl":
        raise UsageError("a split writes a file for each part", where=str(output),
                         fix="give --output a folder")  # fmt: skip
    parse = _parser(settings)
    members = [
        _member(record, settings) for record in records_of(inputs, Output(None), parse=parse)
    ]
    if not members:
        raise DataError("the data holds no records", where=", ".join(s.name for s in inputs),
                        fix="add records")  # fmt: skip
    _expect_columns(members, settings)
    group_of, near = _grouped(members, near=settings.near)
    groups = _groups(members, group_of)
    part_of = _in_time(groups, settings) if settings.time else _drawn(groups, settings)
    parts = [part_of[group] for group in group_of]
    _expect_all_filled(parts, settings)
    prompts: dict[str, set[Words]] = {name: set() for name in settings.fractions}
    for member, part in zip(members, parts, strict=True):
        prompts[part].add(member.words)
    cuts = _cuts(groups, part_of, settings) if settings.time else ()
    given = settings.plain()
    with writing_records(output, "split", inputs, given, overwrite=overwrite) as written:
        kept = records_of(inputs, written, parse=parse)
        for record, part in zip(kept, parts, strict=True):
            written.keep(record, part)
    counts = Counter(parts)
    return SplitReport(
        rows={name: counts[name] for name in settings.fractions},
        prompts={name: len(prompts[name]) for name in settings.fractions},
        groups=len(groups),
        near=near,
        cuts=cuts,
    )


@dataclass(frozen=True, slots=True)
class _Member:
    """What decides a record's part: the words of its prompt, its own hash, and its columns."""

    words: Words
    hash: str
    group: str | None
    stratum: str | None
    time: float


@dataclass(frozen=True, slots=True)
class _Group:
    """Records that stay together: `_Group("9f86...", size=3, stratum="maths", time=1.7e9)`; the
    stratum is the commonest one, the time the latest."""

    key: str
    size: int
    stratum: str | None
    time: float


def _parser(settings: SplitSettings) -> Parse[Record]:
    """Reads any record; one without a usable time is a bad row where times decide."""

    def timed(row: Row, origin: Origin) -> Record:
        record = any_record(row, origin)
        _time_of(record, str(settings.time))
        return record

    return timed if settings.time else any_record


def _member(record: Record, settings: SplitSettings) -> _Member:
    text = record.text if isinstance(record, Document) else asked(prompt_of(record))
    group = value_at(record, settings.group) if settings.group else None
    stratum = value_at(record, settings.by) if settings.by else None
    return _Member(
        words(text),
        content_hash(record),
        None if group is None else json.dumps(group, sort_keys=True, default=str),
        None if stratum is None else json.dumps(stratum, sort_keys=True, default=str),
        _time_of(record, settings.time) if settings.time else 0.0,
    )


def _time_of(record: Record, column: str) -> float:
    """The time of a record in seconds since 1970."""
    value = value_at(record, column)
    seconds = _seconds(value)
    if seconds is None:
        said = "missing" if value is None else "neither a time in numbers nor an ISO 8601 date"
        raise DataError(f"the time `{column}` is {said}", where=str(record.origin),
                        fix="write it as in 2026-03-01T12:00:00Z, or drop the row",
                        kind="no_time")  # fmt: skip
    return seconds


def _seconds(value: Any) -> float | None:
    """Seconds since 1970 of a number (also of milli-, micro- or nanoseconds; below 0 before), or of
    an ISO 8601 text (UTC where it names no zone); `None` for what is no time."""
    if type(value) in (int, float) and value <= 0:
        since = _seconds(-value) if value else 0.0
        return None if since is None else -since
    read = time_of(value)
    return None if read is None else read.timestamp()


def _expect_columns(members: Sequence[_Member], settings: SplitSettings) -> None:
    """A column that no record has is a slip."""
    given = {"by": (settings.by, [m.stratum for m in members]),
             "group": (settings.group, [m.group for m in members])}  # fmt: skip
    for option, (name, values) in given.items():
        if name is not None and not any(values):
            raise DataError(f"{option} is {name}, and no record has that column",
                            fix="check its name; a nested one is written meta.source")  # fmt: skip


def _grouped(members: Sequence[_Member], *, near: bool) -> tuple[list[int], int]:
    """(the group of every member, how many prompts are near-duplicates of another one)."""
    # sorted, so that the groups are found the same way whatever the order of the rows
    different = sorted({member.words for member in members})
    place = {text: number for number, text in enumerate(different)}
    alike = alike_groups(different) if near else list(range(len(different)))
    root = list(alike)

    def lead(number: int) -> int:
        while root[number] != number:
            root[number] = number = root[root[number]]
        return number

    first: dict[str, int] = {}
    for member in members:
        if member.group is not None:
            other = first.setdefault(member.group, place[member.words])
            one, two = sorted((lead(other), lead(place[member.words])))
            root[two] = one
    found = [lead(place[member.words]) for member in members]
    return found, sum(number != head for number, head in enumerate(alike))


def _groups(members: Sequence[_Member], group_of: Sequence[int]) -> dict[int, _Group]:
    held: dict[int, list[_Member]] = {}
    for member, group in zip(members, group_of, strict=True):
        held.setdefault(group, []).append(member)
    return {group: _summed(rows) for group, rows in held.items()}


def _summed(rows: Sequence[_Member]) -> _Group:
    key = sha256_hex("\n".join(sorted(repr(row.words) for row in rows)))
    strata = Counter(row.stratum for row in rows)
    commonest = min(strata, key=lambda name: (-strata[name], str(name)))
    return _Group(key, len(rows), commonest, max(row.time for row in rows))


def _drawn(groups: Mapping[int, _Group], settings: SplitSettings) -> dict[int, str]:
    """The part of every group, stratum by stratum: systematic sampling in the order of hashes."""
    seed = settings.seed or 0
    strata: dict[str | None, list[int]] = {}
    for number, group in groups.items():
        strata.setdefault(group.stratum, []).append(number)
    parts: dict[int, str] = {}
    for name, numbers in strata.items():
        ordered = sorted(numbers, key=lambda n: (draw(seed, groups[n].key), groups[n].key))
        # small strata begin anywhere: else none of them would ever reach the last part
        start = draw(seed, f"stratum {name}") if settings.by else 0.0
        for number, middle in _middles(ordered, groups):
            parts[number] = _part_at((middle + start) % 1.0, settings.fractions)
    return parts


def _in_time(groups: Mapping[int, _Group], settings: SplitSettings) -> dict[int, str]:
    ordered = sorted(groups, key=lambda number: (groups[number].time, groups[number].key))
    return {
        number: _part_at(middle, settings.fractions) for number, middle in _middles(ordered, groups)
    }


def _middles(ordered: Iterable[int], groups: Mapping[int, _Group]) -> Iterator[tuple[int, float]]:
    """(group, the place of its middle among all rows, in [0, 1))."""
    listed = list(ordered)
    total = sum(groups[number].size for number in listed)
    before = 0
    for number in listed:
        yield number, (before + groups[number].size / 2) / total
        before += groups[number].size


def _part_at(place: float, fractions: Mapping[str, float]) -> str:
    reached = 0.0
    for name, fraction in fractions.items():
        reached += fraction
        if place < reached:
            return name
    return name


def _expect_all_filled(parts: Sequence[str], settings: SplitSettings) -> None:
    empty = [name for name in settings.fractions if name not in parts]
    if empty:
        raise DataError(
            f"{empty[0]} would be empty: {len(parts)} records, and what belongs together stays "
            "together",
            fix="add records, raise its fraction or drop that part",
        )


def _cuts(
    groups: Mapping[int, _Group], part_of: Mapping[int, str], settings: SplitSettings
) -> tuple[str, ...]:
    """The latest time of each part but the last."""
    latest = {
        name: max(groups[number].time for number, part in part_of.items() if part == name)
        for name in settings.fractions
    }
    return tuple(
        datetime.fromtimestamp(latest[name], UTC).isoformat()
        for name, _ in pairwise(settings.fractions)
    )
