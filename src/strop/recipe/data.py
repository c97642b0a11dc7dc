"""Where records come from and how they become tokens."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from strop.recipe.base import LocalPath, Strict


class DataSource(Strict):
    """One JSONL or Parquet file, or a `datasets` folder."""

    path: LocalPath


def _sources(value: Any) -> Any:
    """`data: train.jsonl` and `data: [a.jsonl, {path: b.jsonl}]` both mean a list of sources."""
    listed = value if isinstance(value, list) else [value]
    return [{"path": item} if isinstance(item, str) else item for item in listed]


Sources = Annotated[list[DataSource], BeforeValidator(_sources), Field(min_length=1)]


class TextRecipe(Strict):
    """Limits on tokens. Records over the limit are dropped or cut, and counted either way."""

    max_length: int = Field(2048, ge=2)
    overlong: Literal["drop", "cut"] = "drop"


class EvalDuring(Strict):
    """Loss (and preference accuracy) on held-out records every `every` steps."""

    data: Sources
    every: int = Field(100, ge=1)
