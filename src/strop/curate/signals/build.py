"""`strop data build`: files of a product's logs and signals -> files of records."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from strop.curate.manifest import writing_records
from strop.curate.signals.interaction import Interaction
from strop.curate.signals.join import Index
from strop.curate.signals.judging import surest
from strop.curate.signals.maker import Maker
from strop.curate.signals.pairs import Balanced
from strop.curate.signals.rows import Sighting, found_in
from strop.curate.signals.rules import KINDS, Rules
from strop.curate.signals.sources.table import SOURCES
from strop.data.bad_rows import LeftOut, Sieve
from strop.data.sources import sieve_of
from strop.errors import DataError, UsageError
from strop.judge.build import TrustedJudge, trusted_judge
from strop.recipe.curate import BuildSettings
from strop.recipe.loading.yaml_text import short
from strop.recipe.train.data import DataSource
from strop.types import Origin

Item = TypeVar("Item")
Advance = Callable[[int], None]
EVERY = 1000
"""Rows after which progress is told; each is read twice."""


def quiet(rows: int) -> None:
    """Told of rows that are done, and says nothing."""


@dataclass(frozen=True, slots=True)
class Built:
    """What `build` found and made.

    `Built(recognised={"traces.jsonl": {"langfuse": 1200}}, interactions=900, used=700,
    without_signal=150, left_out={"small_edit": 50}, records={"feedback": 650, ...}, ...)`: every
    interaction is used, without a signal, or left out for one reason. `signals` are counted by kind
    and name, `unread` those whose name does not say what they mean; `unmatched` refer to nothing
    that was read; `conflicts` counts answers with signals that contradict each other. `unknown` are
    fields that no source reads, by source and dotted path. `silent` rows hold no answer at all
    (spans of tools). `asked_again` interactions repeat a prompt within their session,
    `shared_ids` have the id of an earlier, different one, to which signals go. `bad` are the
    broken rows. `lengths` says how pairs of right and wrong answers were balanced. `judged` counts
    the pairs that a judge was given, by how they ended (`kept`, or a reason).
    """

    recognised: Mapping[str, Mapping[str, int]]
    interactions: int
    used: int
    without_signal: int
    left_out: Mapping[str, int]
    signals: Mapping[str, int]
    unread: Mapping[str, int]
    unmatched: int
    conflicts: int
    records: Mapping[str, int]
    unknown: Mapping[str, Mapping[str, int]]
    silent: int
    asked_again: int
    shared_ids: int
    bad: LeftOut
    lengths: Balanced | None
    judged: Mapping[str, int]

    def plain(self) -> dict[str, Any]:
        """As one JSON object: the fields by name, `lengths.kept` as a count."""
        named = asdict(self)
        named["bad"] = [row.plain() for row in self.bad]
        if self.lengths is not None:
            named["lengths"]["kept"] = len(self.lengths.kept)
        return named

    @property
    def sentence(self) -> str:
        """On one line, for a person."""
        made = ", ".join(f"{count} {kind}" for kind, count in self.records.items())
        return f"{made} records from {self.used} of {self.interactions} interactions"


def build_stage(
    inputs: Sequence[DataSource],
    output: Path | None,
    settings: BuildSettings,
    *,
    overwrite: bool = False,
    advance: Advance = quiet,
) -> Built:
    """`build` with its options as settings, as the command line and stages of pipelines give
    them."""
    rules = Rules(
        kinds=KINDS if settings.kinds is None else tuple(settings.kinds),
        edits=(settings.edit_min, settings.edit_max),
        thumbs=tuple(settings.thumb),
        verdicts=tuple(settings.verdict),
        score=settings.score,
        infer_regenerations=settings.infer_regenerations,
        all_prompts=settings.all_prompts,
        balance_length=settings.balance_length,
    )
    return build(
        inputs,
        output,
        source=settings.source,
        rules=rules,
        trusted=None if settings.judge is None else trusted_judge(settings.judge, "pairwise"),
        overwrite=overwrite,
        advance=advance,
    )


def build(
    inputs: Sequence[DataSource],
    output: Path | None,
    *,
    source: str | None = None,
    rules: Rules | None = None,
    trusted: TrustedJudge | None = None,
    overwrite: bool = False,
    advance: Advance = quiet,
) -> Built:
    """Read exports, join their rows, and write the records that their signals make.

    Each kind of record goes to its own file in the folder `output` (`preferences.jsonl`,
    `demonstrations.jsonl`, `feedback.jsonl`, `tasks.jsonl`), with `manifest.json` and
    `dropped.jsonl`; without a folder everything is only counted. `source` names the source of all
    rows, each of which is recognised by its fields otherwise. Raises `DataError` where more of an
    input's rows are broken than its `max_bad` allows (1 % unless given), and `UsageError` for names
    that do not exist; nothing is written then. A `trusted` judge compares answers that nobody said
    anything about, and `verify.jsonl` holds some of its pairs for a person. `advance` is told of
    rows that were read.
    """
    rules = rules or Rules()
    _expect_known(source, rules, output)
    asked = None if trusted is None else {"judge": dict(trusted.judge.identity()),
                                          "sure": surest(trusted.card)}  # fmt: skip
    settings = {"source": source, **asdict(rules), "judge": asked}
    with writing_records(output, "build", inputs, settings, overwrite=overwrite) as out:
        index, seen, bad = _first_reading(inputs, source, rules, advance)
        for row in bad:
            out.drop(row)
        maker = Maker(rules, index, out, trusted)
        for place, found, origin in _watched(_second_reading(inputs, source), advance):
            if isinstance(found, Interaction):
                maker.make(index.joined(place, found))
            else:
                maker.leave_out(found.kind, origin, found.problem)
        lengths = maker.close()
    return Built(
        recognised={path: dict(counts) for path, counts in seen.recognised.items()},
        interactions=index.interactions + seen.unwanted,
        used=maker.used,
        without_signal=maker.without_signal,
        left_out=dict(maker.left_out.most_common()),
        signals=dict(sorted(maker.signals.items())),
        unread=dict(maker.unread.most_common()),
        unmatched=len(index.unmatched),
        conflicts=maker.conflicts,
        records={kind: maker.records[kind] for kind in rules.kinds},
        unknown={name: dict(one.most_common()) for name, one in seen.unknown.items() if one},
        silent=seen.silent,
        asked_again=index.asked_again,
        shared_ids=index.shared_ids,
        bad=bad,
        lengths=lengths,
        judged=dict(maker.judged.most_common()),
    )


def _expect_known(source: str | None, rules: Rules, output: Path | None) -> None:
    if source is not None and source not in SOURCES:
        raise UsageError(f"no source is called {source!r}", where="--source",
                         fix=f"use one of {', '.join(SOURCES)}")  # fmt: skip
    odd = ", ".join(kind for kind in rules.kinds if kind not in KINDS)
    if odd or not rules.kinds:
        raise UsageError(f"no kind of record is called {odd!r}", where="--kinds",
                         fix=f"use some of {', '.join(KINDS)}")  # fmt: skip
    low, high = rules.edits
    if not 0 <= low < high <= 1:
        raise UsageError(f"edits cannot be kept from {low:g} to {high:g}", where="--edit-min",
                         fix="give two bounds between 0 and 1, the smaller first")  # fmt: skip
    if output is not None and output.suffix == ".jsonl":
        raise UsageError("records of several kinds do not go into one file", where=str(output),
                         fix="give --output a folder")  # fmt: skip


def _watched(items: Iterable[Item], advance: Advance) -> Iterator[Item]:
    for number, item in enumerate(items, start=1):
        if number % EVERY == 0:
            advance(EVERY)
        yield item


def _first_reading(
    inputs: Sequence[DataSource],
    source: str | None,
    rules: Rules,
    advance: Advance,
) -> tuple[Index, Sighting, LeftOut]:
    """What refers to what, what was recognised, and the broken rows."""
    index = Index(infer_regenerations=rules.infer_regenerations)
    seen = Sighting()
    bad = LeftOut()
    for one in inputs:
        sieve = sieve_of(one)
        for found, _ in _watched(found_in(one, source, sieve, seen), advance):
            if isinstance(found, DataError):
                seen.unwanted += 1
            else:
                index.add(found)
        sieve.expect_clean()
        bad.extend(sieve.dropped)
    if not seen.recognised and not bad:
        raise DataError("there are no rows", where=", ".join(one.name for one in inputs),
                        fix="give files that hold rows")  # fmt: skip
    _expect_named(rules, index.names)
    index.close()
    return index, seen, bad


def _expect_named(rules: Rules, names: Collection[str]) -> None:
    """Raise `UsageError` for a name of a thumb or a verdict that no signal has."""
    for option, given in (("--thumb", rules.thumbs), ("--verdict", rules.verdicts)):
        odd = [name for name in given if name not in names]
        if odd:
            found = ", ".join(sorted(map(short, names))[:20]) or "no signals"
            raise UsageError(f"no signal is called {short(odd[0])!r}", where=option,
                             fix=f"the files have {found}")  # fmt: skip


def _second_reading(
    inputs: Sequence[DataSource], source: str | None
) -> Iterator[tuple[int, Interaction | DataError, Origin]]:
    """Interactions with their number, and rows of no use; broken rows were told of before."""
    place = 0
    for one in inputs:
        for found, origin in found_in(one, source, Sieve(one.name, 1.0), Sighting(names=False)):
            if isinstance(found, Interaction | DataError):
                yield place, found, origin
                place += isinstance(found, Interaction)
