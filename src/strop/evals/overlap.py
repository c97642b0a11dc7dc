"""Eval items against everything that a model and its ancestors were trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strop.data.bad_rows import Sieve
from strop.data.items import item_of
from strop.data.overlap import SHOWN, Overlap, overlap
from strop.data.records import any_record
from strop.data.sources import rows_hash, stream
from strop.errors import DataError
from strop.recipe.train.data import DataSource
from strop.registry.lineage import generations
from strop.types import Preference, Record, Task


@dataclass(frozen=True, slots=True)
class TrainedOnItem:
    """An eval item that was trained on.

    `TrainedOnItem("7", where="test.jsonl:8", how="prompt", share=1.0, count=2,
    training=("sft.jsonl:17", "sft.jsonl:90"))`
    """

    item: str
    where: str
    how: str
    share: float
    count: int
    training: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OverlapReport:
    """`OverlapReport(items=200, found=(TrainedOnItem(...),), checked=("sft.jsonl",),
    unknown={"dpo.jsonl": "it is gone"})`; `unknown` lists what could not be compared, and why."""

    items: int
    found: tuple[TrainedOnItem, ...]
    checked: tuple[str, ...]
    unknown: Mapping[str, str]

    def lines(self) -> list[str]:
        """One line per finding; empty if nothing was found and everything could be compared."""
        lines = [
            f"{one.where}: item {one.item} was trained on ({_how(one)}): "
            + ", ".join(one.training + ("...",) * (one.count > len(one.training)))
            for one in self.found
        ]
        return lines + [f"{path}: not compared: {why}" for path, why in self.unknown.items()]


def training_sources(lineage: Mapping[str, Any]) -> list[tuple[DataSource, str]]:
    """(source, hash as `rows_hash` gives it) of all data behind a model, oldest first, each
    once."""
    found: list[tuple[DataSource, str]] = []
    for model in generations(lineage):
        for kept in model.get("data", []):
            place = kept.get("read", {"path": str(kept["path"])})
            one = (DataSource.model_validate(place), str(kept["sha256"]))
            if one not in found:
                found.append(one)
    return found


def check_overlap(
    items: Sequence[Task | Preference], lineage: Mapping[str, Any], told_by: Sequence[str] = ()
) -> OverlapReport:
    """Compare eval items with all training data of a lineage (see `data.overlap.overlap`); items
    with the same prompt are told apart by the columns `told_by`.

    `unknown` lists files that are gone or changed since training, and ancestors whose weights have
    been replaced. The training data of a base model that strop did not train cannot be checked.
    """
    checked: list[DataSource] = []
    unknown: dict[str, str] = {}
    for source, digest in training_sources(lineage):
        state = _state(source, digest)
        if state is None:
            checked.append(source)
        else:
            unknown[source.name] = state
    for model in generations(lineage):
        if model.get("changed"):
            unknown[str(model["model"])] = "its weights changed, so its history is lost"
    compared = overlap(items, _records(checked), [told_by] * len(items))
    names = tuple(source.name for source in checked)
    return OverlapReport(len(items), _named(items, compared), names, unknown)


def _state(source: DataSource, digest: str) -> str | None:
    """Why a source cannot be compared; `None` if it is unchanged since training."""
    try:
        return None if rows_hash(source) == digest else "it changed since the training"
    except (DataError, OSError):
        return "it is gone"


def _records(sources: Sequence[DataSource]) -> Iterator[Record]:
    """All rows that are records of some kind; rows that training could not use are left out."""
    for source in sources:
        yield from stream(source, any_record, Sieve(source.name, max_bad=1.0))


def _named(items: Sequence[Task | Preference], compared: Overlap) -> tuple[TrainedOnItem, ...]:
    return tuple(
        TrainedOnItem(
            item_of(items[match.item]),
            str(items[match.item].origin),
            match.how,
            match.share,
            match.count,
            tuple(map(str, match.places[:SHOWN])),
        )
        for match in compared.matches
    )


def _how(one: TrainedOnItem) -> str:
    if one.how == "13-gram":
        return f"{one.share:.0%} of its runs of 13 words"
    return f"equal {one.how}"
