"""The network of a recipe, its precision and its adapter."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from strop.recipe.base import ModelPath, Strict


class LoraRecipe(Strict):
    """A low-rank adapter (peft). By default on every linear layer except the LM head.

    `rslora` scales by alpha / sqrt(rank) (Kalajdzievski 2023, arXiv 2312.03732); `dora` trains
    magnitude and direction separately (Liu et al. 2024, arXiv 2402.09353).
    """

    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: str | list[str] = "all-linear"
    rslora: bool = False
    dora: bool = False


class ModelRecipe(Strict):
    """The model to start from; `model: folder` is short for `model: {path: folder}`.

    `dtype` is the precision of the arithmetic: with bfloat16, trained weights are kept in float32
    and computed under autocast; frozen weights are stored in bfloat16. `quantize: nf4` stores the
    frozen weights below an adapter in 4 bits (QLoRA: Dettmers et al. 2023, arXiv 2305.14314);
    `gradient_checkpointing` computes layers twice instead of keeping their activations;
    `offload_activations` keeps the inputs of those layers, too, in host memory.
    """

    path: ModelPath
    tokenizer: ModelPath | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    lora: LoraRecipe | None = None
    quantize: Literal["nf4"] | None = None
    gradient_checkpointing: bool = False
    offload_activations: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    trust_remote_code: bool = False

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, given: Any) -> Any:
        return {"path": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _quantized_weights_are_frozen(self) -> Self:
        if self.quantize is not None and self.lora is None:
            raise ValueError("quantized weights cannot be trained: add model.lora")
        return self

    @model_validator(mode="after")
    def _layers_that_are_offloaded_are_checkpointed(self) -> Self:
        if self.offload_activations and not self.gradient_checkpointing:
            raise ValueError(
                "offload_activations moves what gradient checkpointing keeps: "
                "set model.gradient_checkpointing: true, too"
            )
        return self
