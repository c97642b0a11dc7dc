"""Which network, in which precision, with which adapter."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from strop.recipe.base import ModelPath, Strict


class LoraRecipe(Strict):
    """A low-rank adapter (peft). By default on every linear layer except the LM head."""

    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: str | list[str] = "all-linear"


class ModelRecipe(Strict):
    """The model to start from.

    `dtype` is the precision of the arithmetic: with bfloat16, trained weights are kept in float32
    and computed under autocast; frozen weights are stored in bfloat16.
    """

    path: ModelPath
    tokenizer: ModelPath | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    lora: LoraRecipe | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    trust_remote_code: bool = False
