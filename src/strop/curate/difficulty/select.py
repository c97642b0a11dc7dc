"""The best records by a score, the most diverse ones, or the most diverse of the best."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from strop.curate.asking import Advance, engine_of, quiet
from strop.curate.contents import content_hash, prompt_of, value_at
from strop.curate.difficulty.diverse import central, embedded, k_centre, tfidf
from strop.curate.difficulty.ifd import difficulties
from strop.curate.difficulty.judged import judged
from strop.curate.manifest import Output, expect_free, records_of, writing_records
from strop.curate.underway import Underway
from strop.data.bad_rows import BadRow
from strop.data.duplicates import asked
from strop.engines.build import FolderEngine
from strop.engines.engine import Engine
from strop.errors import DataError, UsageError
from strop.recipe.curate import JUDGED, SelectSettings
from strop.recipe.train.data import DataSource
from strop.types import Document, Record

POOL = 3.0
"""How many times as many of the best records are looked at as are kept, with both criteria."""


@dataclass(frozen=True, slots=True)
class SelectReport:
    """`SelectReport(rows=1000, kept=100, unscored=3, by="quality", lowest=5.0, highest=6.0,
    mean=5.4, mean_before=3.9, radius=0.71)`.

    Scores are those of the kept records, `mean_before` that of all scored ones; `radius` is the
    largest cosine distance of a record (of the pool) to the nearest kept one, for diverse choices.
    """

    rows: int
    kept: int
    unscored: int
    by: str | None
    lowest: float | None
    highest: float | None
    mean: float | None
    mean_before: float | None
    radius: float | None

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def sentence(self) -> str:
        said = [f"{self.kept} of {self.rows} records kept"]
        if self.mean is not None:
            said.append(f"mean {self.by} {self.mean_before:.3g} -> {self.mean:.3g}")
        said += [f"{self.unscored} without a score"] if self.unscored else []
        said += [] if self.radius is None else [f"radius {self.radius:.3g}"]
        return ", ".join(said)


@dataclass(frozen=True, slots=True)
class _Held:
    """A record that is still in the running; `rank` is its score with the better ones higher."""

    rank: float
    hash: str
    place: int
    record: Record

    def key(self) -> tuple[float, str, int]:
        return self.rank, self.hash, -self.place

    def __lt__(self, other: _Held) -> bool:
        return self.key() < other.key()


def select(
    inputs: Sequence[DataSource],
    output: Path | None,
    settings: SelectSettings,
    *,
    overwrite: bool = False,
    engine: Engine | None = None,
    advance: Advance = quiet,
) -> SelectReport:
    """Keep `settings.keep` records, in the order of the inputs; scores that are worked out become
    columns.

    Which ones does not depend on their order. A record without a score is never kept; of computed
    IFD, neither is one of 1 or more (the instruction does not help). Without an output and with a
    model nothing is asked: only the records are read.
    """
    if output is None and settings.model is not None:
        rows = sum(1 for _ in records_of(inputs, Output(None)))
        return SelectReport(rows, min(rows, settings.keep), 0, settings.by, *[None] * 5)
    if output is not None:
        expect_free(output, overwrite=overwrite)
    underway = Underway(output)
    if settings.model is not None and engine is None:
        engine = engine_of(settings, output)
    given = settings.plain() | ({} if engine is None else {"engine": dict(engine.identity())})
    with writing_records(output, "select", inputs, given, overwrite=overwrite) as written:
        chosen = _Choice(settings, written)
        records = records_of(inputs, written)
        for record, score in _scored(records, settings, engine, underway, advance):
            chosen.offer(record, score)
        report = chosen.close()
    underway.close()
    return report


def _scored(
    records: Iterator[Record],
    settings: SelectSettings,
    engine: Engine | None,
    underway: Underway,
    advance: Advance,
) -> Iterator[tuple[Record, float | None]]:
    """Every record with its score, and with the columns that were worked out for it."""
    name = settings.by
    if engine is not None and name in JUDGED:
        names = ("complexity", "quality") if name == "deita" else (str(name),)
        for record, scores in judged(records, names, engine, underway, advance):
            found = {**scores, "deita": _product(scores)} if name == "deita" else scores
            yield _marked(record, found), found[str(name)]
    elif engine is not None:
        if not isinstance(engine, FolderEngine):
            raise UsageError("ifd reads likelihoods of given answers", fix="give a model folder")
        for record, value in difficulties(records, engine, underway, advance):
            yield _marked(record, {"ifd": value}), value
    else:
        for record in records:
            advance(1)
            yield record, None if name is None else _number_at(record, name)


def _product(scores: Mapping[str, float | None]) -> float | None:
    values = [value for value in scores.values() if value is not None]
    return math.prod(values) if len(values) == len(scores) else None


def _marked(record: Record, found: Mapping[str, float | None]) -> Record:
    return replace(record, columns={**record.columns, **found})


def _number_at(record: Record, name: str) -> float | None:
    """The number in a column; `None` where there is none, or no number."""
    value = value_at(record, name)
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if known and math.isfinite(value) else None


class _Choice:
    """Records in the running, at most as many as can still be chosen; the others are dropped."""

    def __init__(self, settings: SelectSettings, written: Output) -> None:
        self.settings, self.written = settings, written
        self.held: list[_Held] = []
        self.rows = self.unscored = 0
        self.scores: list[float] = []

    @property
    def room(self) -> float:
        """Records that are held at most."""
        if self.settings.by is None:
            return math.inf
        pool = (self.settings.pool or POOL) if self.settings.diverse else 1.0
        return math.ceil(self.settings.keep * pool)

    def offer(self, record: Record, score: float | None) -> None:
        """Take a record in, and drop the one that has to go for it."""
        self.rows += 1
        name = self.settings.by
        if name is not None and score is None:
            self.unscored += 1
            self._drop(record, "unscored", f"no {name} is known")
            return
        if score is not None:
            self.scores.append(score)
        if self.settings.model is not None and name == "ifd" and score is not None and score >= 1:
            self._drop(record, "ifd_of_1", f"ifd is {score:.3f}: the instruction does not help")
            return
        rank = 0.0 if score is None else score if self.settings.order == "highest" else -score
        heapq.heappush(self.held, _Held(rank, content_hash(record), self.rows, record))
        if len(self.held) > self.room:
            self._lose(heapq.heappop(self.held))

    def close(self) -> SelectReport:
        """Write those that are chosen, and drop the rest. Raises `DataError` where nothing has a
        score."""
        name = self.settings.by
        if not self.held:
            raise _nothing(name, self.rows, self.unscored, judged=self.settings.model is not None)
        radius = None
        kept = self.held
        if self.settings.diverse:
            kept, radius = self._spread(sorted(self.held, reverse=True))
        for one in sorted(kept, key=lambda one: one.place):
            self.written.keep(one.record)
        sign = 1 if self.settings.order == "highest" else -1
        ranks = [sign * one.rank for one in kept] if name is not None else []
        return SelectReport(
            rows=self.rows,
            kept=len(kept),
            unscored=self.unscored,
            by=name,
            lowest=min(ranks, default=None),
            highest=max(ranks, default=None),
            mean=math.fsum(ranks) / len(ranks) if ranks else None,
            mean_before=math.fsum(self.scores) / len(self.scores) if ranks else None,
            radius=radius,
        )

    def _spread(self, ranked: list[_Held]) -> tuple[list[_Held], float]:
        """The most diverse of these, which stand best first."""
        texts = [_text_of(one.record) for one in ranked]
        folder = self.settings.embeddings
        vectors = tfidf(texts) if folder is None else embedded(texts, folder)
        order = list(range(len(ranked)))
        first = central(vectors, order) if self.settings.by is None else 0
        cover = k_centre(vectors, self.settings.keep, first=first, order=order)
        centres = set(cover.centres)
        for number, one in enumerate(ranked):
            if number not in centres:
                self._drop(one.record, "not_diverse", "others that are kept are alike")
        return [ranked[number] for number in cover.centres], cover.radius

    def _lose(self, one: _Held) -> None:
        self._drop(one.record, f"{self.settings.by}_rank", "others are better")

    def _drop(self, record: Record, kind: str, reason: str) -> None:
        self.written.drop(BadRow(kind, reason, record.origin, excess=True), record)


def _text_of(record: Record) -> str:
    """What a record is about: its prompt, without system messages."""
    return record.text if isinstance(record, Document) else asked(prompt_of(record))


def _nothing(name: str | None, rows: int, unscored: int, *, judged: bool) -> DataError:
    if not rows or name is None or not unscored:
        return DataError("no record is left to keep", fix="add records, or choose another `by`")
    if judged:
        return DataError(f"none of {rows} records got a score from the model",
                         fix="look at what the model answers, or choose another one")  # fmt: skip
    asks = f"; to have it worked out, name a model (--model) for {name}"
    return DataError(f"no record has a number in the column {name}",
                     fix="check its name (a nested one is written meta.score)"
                     + (asks if name in (*JUDGED, "ifd") else ""))  # fmt: skip
