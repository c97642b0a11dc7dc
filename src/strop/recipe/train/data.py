"""Sources of records, and their conversion to tokens."""

from __future__ import annotations

from datetime import date as Day  # noqa: N812 - a field is called date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from strop.recipe.base import LocalPath, ModelPath, Strict
from strop.recipe.template import DAY, Tokens


class DataSource(Strict):
    """A source of records (docs/data.md).

    `path` is a data file, a folder of them, or a pattern (`data/train-*.parquet`); `hub` a data set
    that `datasets` loads by its name, or a local folder that it accepts, with its `config`, `split`
    (`train` unless given) and `revision`. `columns` maps strop's columns to the file's: `{prompt:
    question}`. `limit` keeps that many records: the first, or with a `shuffle_seed` a random draw.
    `max_bad` is the share of unusable rows that may be left out: 1 % by default, and none of
    held-out data.
    """

    path: LocalPath | None = None
    hub: ModelPath | None = None
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    columns: dict[str, str] = Field({})
    limit: int | None = Field(None, ge=1)
    shuffle_seed: int | None = Field(None, ge=0)
    max_bad: float | None = Field(None, ge=0, le=1)

    @model_validator(mode="after")
    def _one_place(self) -> DataSource:
        if (self.path is None) == (self.hub is None):
            raise ValueError("give `path` (files) or `hub` (a data set by its name), one of them")
        for name in ("config", "split", "revision"):
            if self.hub is None and getattr(self, name) is not None:
                raise ValueError(
                    f"{name} belongs to `hub`: name the files of a split with a pattern, as in "
                    "data/test-*.parquet"
                )
        if self.revision is not None and not self.on_hub:
            raise ValueError(
                f"revision belongs to a data set of the hub, and {self.hub} is a folder: drop "
                "revision, or name the hub's data set as org/name"
            )
        if self.shuffle_seed is not None and self.limit is None:
            raise ValueError(
                "shuffle_seed draws the records that `limit` keeps: set `limit`, or drop it (the "
                "order of training is drawn from `seed`)"
            )
        return self

    @property
    def name(self) -> str:
        """The name of the source in messages: its path, or `hub:org/name`."""
        return self.path if self.path is not None else f"hub:{self.hub}"

    @property
    def on_hub(self) -> bool:
        """Whether the hub has to be asked for it: its data set is no folder here."""
        return self.hub is not None and not Path(self.hub).is_absolute()

    def place(self) -> dict[str, Any]:
        """The options that determine the rows that are read: location, selection and column
        names."""
        keys = {"path", "hub", "config", "split", "revision", "columns", "limit", "shuffle_seed"}
        return self.model_dump(include=keys, exclude_defaults=True)


class MixedSource(DataSource):
    """A source of training records; `weight` is its share of every step's records.

    With weights, demonstrations beside the own records of a preference or reinforcement method are
    replayed with maximum likelihood.
    """

    weight: float | None = Field(None, gt=0)


def _sources(value: Any) -> Any:
    """`data: train.jsonl` and `data: [a.jsonl, {path: b.jsonl}]` both mean a list of sources."""
    listed = value if isinstance(value, list) else [value]
    return [{"path": item} if isinstance(item, str) else item for item in listed]


def _all_weighted(sources: list[MixedSource]) -> list[MixedSource]:
    without = [source.name for source in sources if source.weight is None]
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

    `end_of_turn` are the tokens that end an answer, if the model's files do not name them; `date`
    is the day that a chat template writes, if it writes one, independent of the day of the run.
    `cache` says when tokenised records are kept on disk and reused (docs/store.md): `auto` if they
    outgrow memory, `always` or `never`.
    """

    max_length: int = Field(2048, ge=2)
    overlong: Literal["drop", "cut"] = "drop"
    end_of_turn: Tokens = ()
    date: Day = DAY
    cache: Literal["auto", "always", "never"] = "auto"


class EvalDuring(Strict):
    """Loss (and preference accuracy) on held-out records every `every` steps."""

    data: Sources
    every: int = Field(100, ge=1)
