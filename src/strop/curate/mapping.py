"""Records changed by a function of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from strop.curate.manifest import parsed_of, writing_records
from strop.data.bad_rows import BadRow
from strop.data.forms import Row
from strop.data.records import any_record, row_of
from strop.errors import DataError
from strop.recipe.curate import MapSettings
from strop.recipe.train.data import DataSource
from strop.rewards.own.functions import own_function
from strop.types import Origin, Record

Change = Callable[[dict[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class MapReport:
    """`MapReport(rows=300, kept=280)`: for 20 rows the function returned `None`."""

    rows: int
    kept: int

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def sentence(self) -> str:
        left = self.rows - self.kept
        return f"{self.kept} rows changed" + (f", {left} left out by the function" if left else "")


def map_records(
    inputs: Sequence[DataSource],
    output: Path | None,
    settings: MapSettings,
    *,
    overwrite: bool = False,
) -> MapReport:
    """Write what `function(row)` returns for the row of every record; `None` leaves it out.

    The function gets strop's own form of a record (`{"prompt", "completion", ...}`, further columns
    beside it) and returns a row that is a record again, of the same or another kind. A call that
    raises, or returns anything else, makes the row a bad one: it is left out with its line and
    counted against `max_bad`. Raises `RewardError` where the file has no such function.
    """
    change = own_function(Path(settings.file), settings.function)
    rows = 0
    with writing_records(output, "map", inputs, settings.plain(), overwrite=overwrite) as written:
        for record in parsed_of(inputs, written, partial(_changed, change)):
            rows += 1
            if isinstance(record, Declined):
                row = record.row
                bad = BadRow("declined", "the function returned None", row.origin, excess=True)
                written.drop(bad, row)
            else:
                written.keep(record)
        kept = written.rows.total()
    return MapReport(rows, kept)


@dataclass(frozen=True, slots=True)
class Declined:
    """A record for which the function returned `None`."""

    row: Record


def _changed(change: Change, row: Row, origin: Origin) -> Record | Declined:
    record = any_record(row, origin)
    try:
        found = change(row_of(record))
    except Exception as error:  # noqa: BLE001 - the user's function may raise anything
        said = f"the function raised {type(error).__name__}: {error}"
        raise DataError(said, where=str(origin), kind="raised") from None
    if found is None:
        return Declined(record)
    if not isinstance(found, dict):
        said = f"the function returned a {type(found).__name__}, not a row (a dict) or None"
        raise DataError(said, where=str(origin), kind="returned")
    return any_record(found, origin)
