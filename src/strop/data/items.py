"""The id of an eval item, and its groups."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from strop.errors import DataError
from strop.files import sha256_hex
from strop.types import Preference, Task


def item_of(record: Task | Preference) -> str:
    """The row's own `id`, or a hash of its content, so that reordering a file changes no id."""
    if "id" in record.columns:
        return str(record.columns["id"])
    answers: list[Any] = []
    if isinstance(record, Preference):
        answers = [record.chosen, record.rejected]
    content = json.dumps(
        [record.prompt, *answers, dict(record.columns)], sort_keys=True, default=str
    )
    return sha256_hex(content, 12)


def expect_own_items(records: Sequence[Task | Preference]) -> None:
    """Raise `DataError` where two rows are one item: their scores could not be told apart when they
    are compared with another model's."""
    first: dict[str, Task | Preference] = {}
    for record in records:
        name = item_of(record)
        before = first.setdefault(name, record)
        if before is not record:
            alike = "has the `id`" if "id" in record.columns else "is, column for column, the row"
            raise DataError(
                f"this row {alike} of {before.origin}, so that both are the item {name!r} and "
                "their scores cannot be compared with another model's",
                where=str(record.origin),
                fix='give every row its own `id` ("id": "game-7"), or drop what is double',
            )


def cluster_of(record: Task | Preference) -> str:
    """The row's `cluster`: items that belong together (one document, one customer)."""
    return str(record.columns.get("cluster", item_of(record)))


def slices_of(record: Task | Preference, names: Sequence[str]) -> dict[str, str]:
    """`{"topic": "fractions"}`; raises `DataError` if a column is missing."""
    missing = [name for name in names if name not in record.columns]
    if missing:
        raise DataError(
            f"the slice {missing[0]!r} is no column of this row", where=str(record.origin),
            fix=f"it has {', '.join(record.columns) or 'none besides its text'}",
        )  # fmt: skip
    return {name: str(record.columns[name]) for name in names}
