"""Counts rows that cannot be used: they are left out up to a share, above which the source is
refused."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

from strop.errors import DataError, StropError
from strop.files import temporary_space
from strop.text.masked import masked
from strop.types import Origin

MAX_BAD = 0.01
"""Default share of bad rows that may be left out of training data."""
SHOWN = 3
"""Lines that a message names for every kind of fault."""
UNRENDERABLE = "unrenderable"
"""The kind of a row that the chat template cannot render."""
ENOUGH = 10_000
"""Bad rows after which a file is not read to its end."""
HELD = 1 << 20
"""Bytes of rows left out that are held in memory; more of them go to an unnamed file."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was left out: `BadRow("empty", "`chosen` is empty", Origin("pairs.jsonl", 17))`.

    Rows are counted by `kind`. `excess` marks a well-formed but unwanted row (too long, a
    duplicate), which does not count towards the share of bad rows.
    """

    kind: str
    reason: str
    origin: Origin
    excess: bool = False

    def plain(self) -> dict[str, Any]:
        """As a line of `dropped.jsonl`."""
        return {
            "file": self.origin.path,
            "line": self.origin.line,
            "kind": self.kind,
            "reason": self.reason,
        }


class LeftOut:
    """Rows that were left out, in order: `LeftOut([BadRow("empty", ...), ...])`.

    Every row of a large source may be too long, so memory holds the counts and the first `SHOWN`
    rows of each kind, while the rows themselves are read back from a file that has no name.
    """

    def __init__(self, rows: Iterable[BadRow] = ()) -> None:
        self.kinds: Counter[str] = Counter()
        self.first: dict[str, list[BadRow]] = {}
        self._file = tempfile.SpooledTemporaryFile(HELD)  # noqa: SIM115 - lives as long as this
        self.extend(rows)

    def __del__(self) -> None:
        self._file.close()

    def append(self, row: BadRow) -> None:
        """One more row; raises `OutputError` where the disk is full."""
        self.kinds[row.kind] += 1
        first = self.first.setdefault(row.kind, [])
        if len(first) < SHOWN:
            first.append(row)
        with temporary_space():
            self._file.write(json.dumps(astuple(row)).encode() + b"\n")

    def extend(self, rows: Iterable[BadRow]) -> None:
        for row in rows:
            self.append(row)

    def __len__(self) -> int:
        return self.kinds.total()

    def __iter__(self) -> Iterator[BadRow]:
        """All rows, read from the file; none may be added meanwhile."""
        with temporary_space():  # what was not yet written goes to the disk here
            self._file.seek(0)
        try:
            for line in self._file:
                kind, reason, origin, excess = json.loads(line)
                yield BadRow(kind, reason, Origin(*origin), excess)
        finally:
            self._file.seek(0, os.SEEK_END)

    @property
    def faults(self) -> Counter[str]:
        """The kinds of rows that are bad, not only unwanted, with their counts."""
        bad = {kind: n for kind, n in self.kinds.items() if not self.first[kind][0].excess}
        return Counter(bad)


@dataclass(slots=True)
class Sieve:
    """Counts the rows of one source, and keeps the errors of the bad ones.

    `Sieve("pairs.jsonl", max_bad=0.01)`. Every row is counted once (`look`) and, if it cannot be
    used, dropped; at the end `expect_clean` refuses a source with too many bad rows. `forms` counts
    the formats of the rows that were used, and `unusable` those that were not.
    """

    name: str
    max_bad: float
    rows: int = 0
    unusable: int = 0
    dropped: LeftOut = field(default_factory=LeftOut)
    forms: Counter[str] = field(default_factory=Counter)
    first: StropError | None = None

    def look(self) -> None:
        """Count one more row."""
        self.rows += 1

    def drop(self, error: StropError, origin: Origin) -> None:
        """Leave a row out because of this error; values that the message quotes are masked. Raises
        once there are so many bad rows that reading further is pointless."""
        kind = error.kind if isinstance(error, DataError) else UNRENDERABLE
        if isinstance(error, DataError):  # it may quote a value of the row
            fix = None if error.fix is None else masked(error.fix)
            error = DataError(masked(error.problem), where=error.where, fix=fix, kind=kind)
        self.dropped.append(BadRow(kind, masked(error.problem), origin))
        self.first = self.first or error
        self.unusable += 1
        if self.unusable >= ENOUGH and self.unusable > self.max_bad * self.rows:
            self.expect_clean()

    def leave_out(self, kind: str, reason: str, origin: Origin) -> None:
        """Leave a well-formed row out, because it is unwanted."""
        self.dropped.append(BadRow(kind, reason, origin, excess=True))

    def expect_clean(self) -> None:
        """Raise `DataError` if more than `max_bad` of the rows are bad.

        The message lists every kind of fault with its count and its first lines. A single bad row,
        and a template that renders no row at all, get the message of that error.
        """
        kinds = self.dropped.faults
        bad = kinds.total()
        if self.first is None or bad <= self.max_bad * self.rows:
            return
        if bad == 1 or kinds[UNRENDERABLE] == self.rows:
            raise self.first
        raise DataError(
            f"{bad} of {self.rows} rows ({bad / self.rows:.2%}) cannot be used, and "
            f"max_bad allows {self.max_bad:.2%}:\n" + "\n".join(lines_of(self.dropped)),
            where=self.name,
            fix=f"{self.first.fix or 'mend the rows'}; or raise `max_bad` of this source, and "
            "they are left out",
            kind=next(iter(kinds)),
        )

    def none_left(self) -> DataError:
        """The error for a source without usable rows: it has none, or `max_bad` allows leaving all
        out."""
        if not self.rows:
            return no_records([self.name])
        return DataError(
            f"not one of its {self.rows} rows can be used:\n" + "\n".join(lines_of(self.dropped)),
            where=self.name,
            fix="mend the rows, or take the source out",
        )


@dataclass(frozen=True, slots=True)
class SourceReport:
    """What was read of a source:
    `SourceReport("pairs.jsonl", "preference", {"alpaca": 357}, LeftOut(...))`.

    `forms` counts the rows of each recognised format; `dropped` are the rows that were left out.
    """

    name: str
    kind: str
    forms: Mapping[str, int]
    dropped: LeftOut

    def plain(self) -> dict[str, Any]:
        """As JSON: what was left out is counted by its kind."""
        return {
            "name": self.name,
            "kind": self.kind,
            "forms": dict(self.forms),
            "dropped": dict(self.dropped.kinds.most_common()),
        }

    def line(self) -> str:
        """`pairs.jsonl: preference, 357 rows of alpaca; left out 1 empty (pairs.jsonl:17)`"""
        forms = " and ".join(f"{count} rows of {name}" for name, count in self.forms.items())
        left = f"; left out {counted(self.dropped)}" if self.dropped else ""
        return f"{self.name}: {self.kind}, {forms or 'no rows'}{left}"


def no_records(names: Sequence[str]) -> DataError:
    """The error for sources without any row."""
    return DataError("the data holds no records", where=", ".join(names),
                     fix="add records, or take the file out")  # fmt: skip


def lines_of(rows: LeftOut) -> list[str]:
    """Every kind of fault with its count, then its first lines, for a person.

    `["  2 empty", "    pairs.jsonl:17: `chosen` is empty", "    pairs.jsonl:40: ..."]`
    """
    lines = []
    for kind, count in rows.faults.most_common():
        lines.append(f"  {count} {kind}")
        lines += [f"    {row.origin}: {row.reason}" for row in rows.first[kind]]
    return lines


def counted(rows: LeftOut) -> str:
    """`"2 empty (pairs.jsonl:17), 1 role (pairs.jsonl:20)"`: for one line."""
    return ", ".join(
        f"{count} {kind} ({rows.first[kind][0].origin})" for kind, count in rows.kinds.most_common()
    )
