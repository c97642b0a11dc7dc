"""`strop data clean`: records mended, and without personal data, copies and what nobody wants."""

from __future__ import annotations

import pickle
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from os import SEEK_END
from pathlib import Path
from typing import IO, Any

from strop.curate.clean.duplicates import EXACT, find_duplicates, unique_records
from strop.curate.clean.semantic import THRESHOLD, find_semantic_duplicates
from strop.curate.clean.washer import Washer, scrub_error
from strop.curate.manifest import Output, sources_of, writing_records
from strop.data.bad_rows import BadRow
from strop.data.overlap import eval_item, overlap
from strop.data.records import any_record
from strop.data.sources import read, sieve_of, stream
from strop.errors import DataError
from strop.recipe.curate import CleanSettings
from strop.recipe.train.data import DataSource
from strop.types import Preference, Record, Task

TRAINED_ON, SEMANTIC = "in_eval_set", "semantic_duplicate"
"""Kinds under which records are left out, beside those of `faults`, `duplicates` and `washer`."""

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class CleanReport:
    """What cleaning did.

    `CleanReport(rows=100, kept=90, dropped={"duplicate": 8, "empty": 2}, repairs={"mojibake": 3},
    personal={"email": 12}, duplicates={"records": 98, "unique_prompts": 60, ...}, contaminated=0)`.
    `rows` are all that were read, `repairs` counts mended records, `personal` values that were
    found; `contaminated` are eval items that the records hold, `None` where no eval set was given.
    """

    rows: int
    kept: int
    dropped: Mapping[str, int]
    repairs: Mapping[str, int]
    personal: Mapping[str, int]
    duplicates: Mapping[str, int]
    contaminated: int | None

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def sentence(self) -> str:
        left = ", ".join(f"{count} {kind}" for kind, count in self.dropped.items())
        return f"kept {self.kept} of {self.rows} rows" + (f"; left out {left}" if left else "")


def clean(
    inputs: Sequence[DataSource],
    output: Path | None,
    settings: CleanSettings,
    *,
    overwrite: bool = False,
    advance: Advance = lambda count: None,
) -> CleanReport:
    """Write the records that stay to `output`, as the settings say.

    A record is mended first, then personal data is replaced, then it is looked at; copies are told
    among what is left, and the first one stays. With `pii` set to `replace` or `drop` no personal
    value that was found stands in any file that is written, those of dropped rows and the reasons
    of bad ones included. `advance` is told of the rows done. Raises `DataError` where a source has
    too many bad rows; then nothing is written.
    """
    washer = Washer(settings)
    items = _eval_items(settings)
    with (
        writing_records(output, "clean", inputs, settings.plain(), overwrite=overwrite) as written,
        tempfile.TemporaryFile(dir=written.folder) as file,
    ):
        spool = _Spool(file)
        rows: Counter[str] = Counter()
        washed = _washed(inputs, washer, written, spool, lambda: _count(rows, advance))
        found = find_duplicates(washed)
        copies = {copy.origin: copy for copy in _copies(spool, settings)}
        trained_on = overlap(items, spool.records()) if items else None
        leaving = {
            place: BadRow(TRAINED_ON, "it holds an item of an eval set", place, excess=True)
            for match in (trained_on.matches if trained_on else ())
            for place in match.places
        }
        for record, copy in unique_records(spool.records(), found.records):
            same = copy if copy is not None and _goes(copy, settings) else None
            why = leaving.get(record.origin) or same or copies.get(record.origin)
            if why is None:
                written.keep(record)
            else:
                written.drop(why, record)
    return CleanReport(
        rows=rows["rows"],
        kept=written.rows.total(),
        dropped=dict(written.dropped.most_common()),
        repairs=dict(washer.repairs.most_common()),
        personal=dict(washer.personal.most_common()),
        duplicates=found.plain(),
        contaminated=len(trained_on.matches) if trained_on else None,
    )


def _count(rows: Counter[str], advance: Advance) -> None:
    rows["rows"] += 1
    advance(1)


def _washed(
    inputs: Sequence[DataSource],
    washer: Washer,
    written: Output,
    spool: _Spool,
    seen: Callable[[], None],
) -> Iterator[Record]:
    """The records that pass, each written to the spool; the others are dropped with their
    reason."""
    for source in inputs:
        sieve = sieve_of(source)
        try:
            for record in stream(source, any_record, sieve):
                seen()
                record, why = washer.wash(record)
                if why is not None:
                    written.drop(why, record)
                else:
                    spool.add(record)
                    yield record
            sieve.expect_clean()
        except DataError as error:
            raise scrub_error(error, washer) from None
        for bad in sieve.dropped:
            seen()
            written.drop(replace(bad, reason=washer.scrubbed(bad.reason)))


class _Spool:
    """Records in a temporary file without a name, read as often as it takes."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def add(self, record: Record) -> None:
        pickle.dump(record, self.file)

    def records(self) -> Iterator[Record]:
        end = self.file.seek(0, SEEK_END)
        self.file.seek(0)
        while self.file.tell() < end:
            yield pickle.load(self.file)


def _copies(spool: _Spool, settings: CleanSettings) -> Iterator[BadRow]:
    """What says the same as an earlier record in other words."""
    if settings.semantic is None:
        return
    threshold = THRESHOLD if settings.threshold is None else settings.threshold
    found = find_semantic_duplicates(spool.records(), Path(settings.semantic), threshold=threshold)
    for _, copy in unique_records(spool.records(), found.records):
        if copy is not None:
            yield replace(copy, kind=SEMANTIC)


def _goes(copy: BadRow, settings: CleanSettings) -> bool:
    """Whether a copy of this kind is left out."""
    return settings.duplicates == "near" or (settings.duplicates == "exact" and copy.kind == EXACT)


def _eval_items(settings: CleanSettings) -> list[Task | Preference]:
    """The items of the eval sets that must not be trained on."""
    sources = sources_of([Path(path) for path in settings.against])
    return [eval_item(one) for one in read(sources, any_record, held_out=True)] if sources else []
