"""Where records come from and how they become tokens."""

from __future__ import annotations

from datetime import date as Day  # noqa: N812 - a field is called date
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from strop.recipe.base import LocalPath, Strict
from strop.recipe.template import DAY, Tokens


class DataSource(Strict):
    """A data file, a folder of them, or a pattern (`data/train-*.parquet`): docs/data.md."""

    path: LocalPath


class MixedSource(DataSource):
    """A source of training records; `weight` is its share of every step's records.

    With weights, a file of demonstrations beside a preference or reinforcement method's own
    records is replayed with maximum likelihood.
    """

    weight: float | None = Field(None, gt=0)


def _sources(value: Any) -> Any:
    """`data: train.jsonl` and `data: [a.jsonl, {path: b.jsonl}]` both mean a list of sources."""
    listed = value if isinstance(value, list) else [value]
    return [{"path": item} if isinstance(item, str) else item for item in listed]


def _all_weighted(sources: list[MixedSource]) -> list[MixedSource]:
    without = [source.path for source in sources if source.weight is None]
    if without and len(without) < len(sources):
        raise ValueError(f"give every source a weight or none of them; {without[0]} has none")
    if len(sources) == 1 and not without:
        raise ValueError("weight is a share among several sources: drop it from the only one")
    return sources


Sources = Annotated[list[DataSource], BeforeValidator(_sources), Field(min_length=1)]
MixedSources = Annotated[
    list[MixedSource],
    BeforeValidator(_sources),
    AfterValidator(_all_weighted),
    Field(min_length=1),
]


class TextRecipe(Strict):
    """How records become tokens. Those over `max_length` are dropped or cut, and counted.

    `end_of_turn` are the tokens that end an answer where the model's files do not name them; `date`
    is the day that a chat template writes, if it writes one: the same whenever a run is started.
    """

    max_length: int = Field(2048, ge=2)
    overlong: Literal["drop", "cut"] = "drop"
    end_of_turn: Tokens = ()
    date: Day = DAY


class EvalDuring(Strict):
    """Loss (and preference accuracy) on held-out records every `every` steps."""

    data: Sources
    every: int = Field(100, ge=1)
