"""The network of a recipe, its precision and its adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from strop.recipe.base import ModelPath, Strict


class LoraRecipe(Strict):
    """A low-rank adapter (peft). By default on every linear layer except the LM head.

    `rslora` scales by alpha / sqrt(rank) (Kalajdzievski 2023, arXiv 2312.03732); `dora` trains
    magnitude and direction separately (Liu et al. 2024, arXiv 2402.09353). `experts` adapts the
    experts of a mixture, too, each with an adapter of this rank.
    """

    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: str | list[str] = "all-linear"
    experts: bool = False
    rslora: bool = False
    dora: bool = False

    @model_validator(mode="after")
    def _experts_have_plain_adapters(self) -> Self:
        if self.experts and (self.dropout or self.dora):
            raise ValueError(
                "peft adapts experts through their weights, where there is neither dropout nor "
                "dora: drop both, or experts"
            )
        return self


class NamedModel(Strict):
    """A model by its `path`: a folder, or a hub model, with the branch, tag or commit that is its
    `revision` (by default the hub's main branch).

    A run reads a hub model from a folder of the cache that `at` puts in the place of its name. What
    is written down of it is the name and the commit, which every machine understands.
    """

    path: ModelPath
    revision: str | None = Field(None, min_length=1)
    _name: str | None = PrivateAttr(None)

    @property
    def on_hub(self) -> bool:
        """Whether the path is a name that the hub has still to be asked for."""
        return not Path(self.path).is_absolute()

    @property
    def name(self) -> str:
        """What the recipe calls the model: the folder, or the name on the hub."""
        return self._name or self.path

    def at(self, folder: str, commit: str) -> Self:
        """This hub model, to be read from a folder that holds it as it was at a commit."""
        found = self.model_copy(update={"path": folder, "revision": commit})
        found._name = self.path
        return found

    def moved(self, folder: str) -> Self:
        """The same recipe for another model, which lies in a folder."""
        found = self.model_copy(update={"path": folder, "revision": None})
        found._name = None
        return found

    def origin(self) -> dict[str, str]:
        """`{"path": "/models/base"}`, or `{"path": "org/base", "revision": "3f9a..."}`."""
        revision = {} if self.revision is None else {"revision": self.revision}
        return {"path": self.name, **revision}

    @model_serializer(mode="wrap")
    def _by_name(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = dump(self)
        return {**plain, "path": self.name} if "path" in plain else plain

    @model_validator(mode="after")
    def _only_the_hub_has_revisions(self) -> Self:
        if self.revision is not None and not self.on_hub:
            raise ValueError(
                f"revision belongs to a hub model, and {self.path} is a folder: drop revision, or "
                "name the hub's model as org/name"
            )
        return self


class ModelRecipe(NamedModel):
    """The model to start from; `model: folder` is short for `model: {path: folder}`.

    `dtype` is the precision of the arithmetic: with bfloat16, trained weights are kept in float32
    and computed under autocast; frozen weights are stored in bfloat16. `quantize: nf4` stores the
    frozen weights below an adapter in 4 bits (QLoRA: Dettmers et al. 2023, arXiv 2305.14314);
    `gradient_checkpointing` computes layers twice instead of keeping their activations;
    `offload_activations` keeps the inputs of those layers, too, in host memory;
    `kernels: liger` computes norms, rotary embeddings and SwiGLU with Liger's kernels;
    `router_aux_loss_coef` times the load-balancing loss of a mixture's routers is added to the
    method's loss.
    """

    tokenizer: ModelPath | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    lora: LoraRecipe | None = None
    quantize: Literal["nf4"] | None = None
    gradient_checkpointing: bool = False
    offload_activations: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    trust_remote_code: bool = False
    kernels: Literal["liger"] | None = None
    router_aux_loss_coef: float | None = Field(None, gt=0)

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
