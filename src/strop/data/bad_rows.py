"""Counts rows that cannot be used: they are left out up to a share, above which the source is
refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from strop.errors import DataError, StropError
from strop.text.masked import masked
from strop.types import Origin

MAX_BAD = 0.01
"""Default share of bad rows that may be left out of training data."""
SHOWN = 3
"""Lines that a message names for every kind of fault."""
UNRENDERABLE = "unrenderable"
"""The kind of a row that the chat template cannot render."""
ENOUGH = 10_000
"""After this many bad rows a file is not read any further."""


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
    dropped: list[BadRow] = field(default_factory=list)
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

    @property
    def bad(self) -> list[BadRow]:
        return [row for row in self.dropped if not row.excess]

    def expect_clean(self) -> None:
        """Raise `DataError` if more than `max_bad` of the rows are bad.

        The message lists every kind of fault with its count and its first lines. A single bad row,
        and a template that renders no row at all, get the message of that error.
        """
        bad = self.bad
        if self.first is None or len(bad) <= self.max_bad * self.rows:
            return
        if len(bad) == 1 or sum(row.kind == UNRENDERABLE for row in bad) == self.rows:
            raise self.first
        raise DataError(
            f"{len(bad)} of {self.rows} rows ({len(bad) / self.rows:.2%}) cannot be used, and "
            f"max_bad allows {self.max_bad:.2%}:\n" + "\n".join(lines_of(bad)),
            where=self.name,
            fix=f"{self.first.fix or 'mend the rows'}; or raise `max_bad` of this source, and "
            "they are left out",
            kind=bad[0].kind,
        )

    def none_left(self) -> DataError:
        """The error for a source without usable rows: it has none, or `max_bad` allows leaving all
        out."""
        if not self.rows:
            return no_records([self.name])
        return DataError(
            f"not one of its {self.rows} rows can be used:\n" + "\n".join(lines_of(self.bad)),
            where=self.name,
            fix="mend the rows, or take the source out",
        )


@dataclass(frozen=True, slots=True)
class SourceReport:
    """A report on reading a source: `SourceReport("pairs.jsonl", "preference", {"alpaca": 357},
    (BadRow(...),))`.

    `forms` counts the rows of each recognised format; `dropped` are the rows that were left out.
    """

    name: str
    kind: str
    forms: Mapping[str, int]
    dropped: tuple[BadRow, ...]

    def plain(self) -> dict[str, Any]:
        """As JSON, with the dropped rows counted by kind."""
        left = Counter(row.kind for row in self.dropped)
        return {
            "name": self.name,
            "kind": self.kind,
            "forms": dict(self.forms),
            "dropped": dict(left.most_common()),
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


def lines_of(bad: Iterable[BadRow]) -> list[str]:
    """Lines for a person: every kind of fault with its count, then its first lines.

    `["  2 empty", "    pairs.jsonl:17: `chosen` is empty", "    pairs.jsonl:40: ..."]`
    """
    kinds: dict[str, list[BadRow]] = {}
    for row in bad:
        kinds.setdefault(row.kind, []).append(row)
    lines = []
    for kind, rows in sorted(kinds.items(), key=lambda one: -len(one[1])):
        lines.append(f"  {len(rows)} {kind}")
        lines += [f"    {row.origin}: {row.reason}" for row in rows[:SHOWN]]
    return lines


def counted(bad: Sequence[BadRow]) -> str:
    """`"2 empty (pairs.jsonl:17), 1 role (pairs.jsonl:20)"`: for one line."""
    first: dict[str, Origin] = {}
    for row in bad:
        first.setdefault(row.kind, row.origin)
    kinds = Counter(row.kind for row in bad).most_common()
    return ", ".join(f"{count} {kind} ({first[kind]})" for kind, count in kinds)
