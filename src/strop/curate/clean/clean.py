"""`strop data clean`: records mended, and without personal data, copies and what nobody wants."""

from __future__ import annotations

import io
import pickle
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from strop.curate.clean.duplicates import find_duplicates, unique_records
from strop.curate.clean.semantic import THRESHOLD, find_semantic_duplicates
from strop.curate.clean.washer import Washer
from strop.curate.manifest import sources_of, writing_records
from strop.data.bad_rows import BadRow, LeftOut, no_records
from strop.data.overlap import eval_item, overlap
from strop.data.records import any_record
from strop.data.sources import read, sieve_of, stream
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
        found = find_duplicates(_washed(inputs, washer, spool, lambda: _count(rows, advance)))
        washer.all_washed()
        copies = dict(_copies(spool, settings))
        trained_on = overlap(items, spool.kept()) if items else None
        leaving = {
            place: BadRow(TRAINED_ON, "it holds an item of an eval set", place, excess=True)
            for match in (trained_on.matches if trained_on else ())
            for place in match.places
        }
        repeats = found.records if settings.duplicates == "near" else found.records.exactly
        for place, (record, copy) in enumerate(unique_records(spool.kept(), repeats)):
            same = None if settings.duplicates == "keep" else copy
            why = leaving.get(record.origin) or same or copies.get(place)
            record, why = washer.rinse(record, why)
            if why is None:
                written.keep(record)
            else:
                written.drop(why, record)
        for record, reason in spool.left_out():
            written.drop(reason, washer.rinse(record, reason)[0])
        for bad in spool.bad:
            rows["rows"] += 1
            written.drop(replace(bad, reason=washer.scrubbed(bad.reason)))
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
    inputs: Sequence[DataSource], washer: Washer, spool: _Spool, seen: Callable[[], None]
) -> Iterator[Record]:
    """The records that pass; all of them stand in the spool, and so does what is wrong with the
    others."""
    for source in inputs:
        sieve = sieve_of(source)
        for record in stream(source, any_record, sieve):
            seen()
            record, why = washer.wash(record)
            spool.add(record, why)
            if why is None:
                yield record
        sieve.expect_clean()
        spool.bad.extend(sieve.dropped)
    if not spool.bad and not spool.file.tell():
        raise no_records([source.name for source in inputs])


class _Spool:
    """Records in a temporary file without a name, each with the reason why it is left out, if it
    is; read as often as it takes. `bad` are the rows that are no records."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.bad = LeftOut()

    def add(self, record: Record, why: BadRow | None) -> None:
        pickle.dump((record, why), self.file)

    def kept(self) -> Iterator[Record]:
        """The records that passed."""
        return (record for record, why in self._all() if why is None)

    def left_out(self) -> Iterator[tuple[Record, BadRow]]:
        """The others, with their reason."""
        return ((record, why) for record, why in self._all() if why is not None)

    def _all(self) -> Iterator[tuple[Record, BadRow | None]]:
        end = self.file.seek(0, io.SEEK_END)
        self.file.seek(0)
        while self.file.tell() < end:
            yield pickle.load(self.file)


def _copies(spool: _Spool, settings: CleanSettings) -> Iterator[tuple[int, BadRow]]:
    """What says the same as an earlier record in other words, with its place."""
    if settings.semantic is None:
        return
    threshold = THRESHOLD if settings.threshold is None else settings.threshold
    found = find_semantic_duplicates(spool.kept(), Path(settings.semantic), threshold=threshold)
    for place, (_, copy) in enumerate(unique_records(spool.kept(), found.records)):
        if copy is not None:
            yield place, replace(copy, kind=SEMANTIC)


def _eval_items(settings: CleanSettings) -> list[Task | Preference]:
    """The items of the eval sets that must not be trained on."""
    sources = sources_of([Path(path) for path in settings.against])
    return [eval_item(one) for one in read(sources, any_record, held_out=True)] if sources else []
