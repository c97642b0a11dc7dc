"""Rows that cannot be used: left out and counted up to a share, a refusal above it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from strop.errors import DataError, StropError
from strop.types import Origin

MAX_BAD = 0.01
"""Share of bad rows that is left out of training data unless a recipe says otherwise."""
SHOWN = 3
"""Lines that are named for every kind of fault."""
ENOUGH = 10_000
"""Bad rows after which a file is not read to its end."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was left out: `BadRow("empty", "`chosen` is empty", Origin("pairs.jsonl", 17))`.

    `kind` is the word by which it is counted. `excess` marks a row that is well-formed and only
    unwanted (too long, a duplicate): it does not count against the share of bad rows.
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
    """Counts the rows of one source, and keeps what is said of the bad ones.

    `Sieve("pairs.jsonl", max_bad=0.01)`; call `look` for every row that was read, `drop` for every
    bad one, and `close` at the end.
    """

    name: str
    max_bad: float
    rows: int = 0
    dropped: list[BadRow] = field(default_factory=list)
    first: DataError | None = None

    def look(self) -> None:
        """One more row was read."""
        self.rows += 1

    def drop(self, error: StropError, origin: Origin) -> None:
        """Leave a row out, because of this error.

        Raises `DataError` once there are so many that reading on would tell nothing more.
        """
        kind = error.kind if isinstance(error, DataError) else "unrenderable"
        self.dropped.append(BadRow(kind, error.problem, origin))
        if self.first is None:
            self.first = DataError(error.problem, where=error.where, fix=error.fix, kind=kind)
        if len(self.bad) >= ENOUGH and self.max_bad < 1:
            self.expect_clean()

    def leave_out(self, kind: str, reason: str, origin: Origin) -> None:
        """Leave a well-formed row out, because it is unwanted."""
        self.dropped.append(BadRow(kind, reason, origin, excess=True))

    @property
    def bad(self) -> list[BadRow]:
        return [row for row in self.dropped if not row.excess]

    def expect_clean(self) -> None:
        """Raise `DataError` where more than `max_bad` of the rows are bad.

        The message has every kind of fault with its count and its first lines; one bad row alone
        is refused with its own message.
        """
        bad = self.bad
        if len(bad) <= self.max_bad * self.rows:
            return
        assert self.first is not None
        if len(bad) == 1:
            raise self.first
        share = len(bad) / self.rows
        raise DataError(
            f"{len(bad)} of {self.rows} rows ({share:.1%}) cannot be used, and max_bad allows "
            f"{self.max_bad:.1%}:\n" + "\n".join(lines_of(bad)),
            where=self.name,
            fix=f"{self.first.fix or 'mend the rows'}; or raise `max_bad` of this source, and "
            "they are left out",
            kind=self.first.kind,
        )


def lines_of(bad: Iterable[BadRow]) -> list[str]:
    """Every kind of fault with its count, then its first lines, for a person.

    `["  2 empty", "    pairs.jsonl:17: `chosen` is empty", "    pairs.jsonl:40: ..."]`
    """
    kinds: dict[str, list[BadRow]] = {}
    for row in bad:
        kinds.setdefault(row.kind, []).append(row)
    told = []
    for kind, rows in sorted(kinds.items(), key=lambda one: -len(one[1])):
        told.append(f"  {len(rows)} {kind}")
        told += [f"    {row.origin}: {row.reason}" for row in rows[:SHOWN]]
    return told


def counted(bad: Sequence[BadRow]) -> str:
    """`"2 empty (pairs.jsonl:17), 1 role (pairs.jsonl:20)"`: for one line."""
    first: dict[str, Origin] = {}
    for row in bad:
        first.setdefault(row.kind, row.origin)
    kinds = Counter(row.kind for row in bad).most_common()
    return ", ".join(f"{count} {kind} ({first[kind]})" for kind, count in kinds)
