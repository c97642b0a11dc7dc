"""The parts that every training recipe has: output, model, data, optimizer, length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from strop.recipe.base import LocalPath, Strict
from strop.recipe.notify import RunNotices
from strop.recipe.template import Scalar, TemplatePath, TemplateRecipe
from strop.recipe.train.data import MixedSources, TextRecipe
from strop.recipe.train.dev import DevRecipe
from strop.recipe.train.model import ModelRecipe
from strop.recipe.train.policy import ValueRecipe
from strop.recipe.train.reward import RewardComponent
from strop.recipe.train.teacher import Teacher


class OptimRecipe(Strict):
    """Warm-up, then a schedule that ends at `final_ratio` times the learning rate.

    `muon` takes the hidden matrices of a full fine-tune (momentum 0.95); AdamW takes the rest.
    `adamw_8bit` keeps AdamW's moments of large tensors in 8 bits (bitsandbytes: Dettmers et al.
    2022, arXiv 2110.02861); those of embeddings and small tensors stay float32.
    """

    optimizer: Literal["adamw", "adamw_8bit", "muon"] = "adamw"
    learning_rate: float = Field(gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_ratio: float = Field(0.05, ge=0, lt=1)
    final_ratio: float = Field(0.0, ge=0, le=1)
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    max_grad_norm: float = Field(1.0, gt=0)


class DistributedRecipe(Strict):
    """How several processes share a run: `{shard: full}`.

    `none`: each holds the whole model, and gradients are added up. `full`: weights, gradients and
    optimizer are cut over all processes (FSDP2, one unit a decoder layer). `hybrid`: they are cut
    within each of `replicas` groups of processes, which hold the same. `cpu_offload` keeps what is
    cut in host memory; `activation_checkpointing` computes decoder layers twice instead of keeping
    their activations. `tensor` processes at a time compute each matrix in parts, whatever `shard`
    is. A process that waits for another longer than `timeout` seconds ends the run.
    """

    shard: Literal["none", "full", "hybrid"] = "none"
    replicas: int | None = Field(None, ge=2)
    tensor: int = Field(1, ge=1)
    cpu_offload: bool = False
    activation_checkpointing: bool = False
    timeout: float = Field(1800.0, gt=0)

    @property
    def cuts(self) -> bool:
        """Whether a process holds a part of the weights."""
        return self.shard != "none" or self.tensor > 1

    @model_validator(mode="before")
    @classmethod
    def _sequences_stay_whole(cls, given: Any) -> Any:
        if isinstance(given, dict) and "context" in given:
            raise ValueError(
                "there is no context parallelism: a tree's branches all attend to their trunk, and "
                "a mask of that shape cannot be cut into equal pieces of the sequence; for longer "
                "sequences set shard, tensor or activation_checkpointing, or lower "
                "run.micro_batch_tokens"
            )
        return given

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.replicas is not None) != (self.shard == "hybrid"):
            raise ValueError("replicas belongs to shard: hybrid, which needs it")
        if self.cpu_offload and self.shard == "none":
            raise ValueError("cpu_offload keeps what is sharded: set shard to full or hybrid")
        if self.cpu_offload and self.tensor > 1:
            raise ValueError("cpu_offload and tensor exclude each other: leave one of them out")
        return self


class RunRecipe(Strict):
    """Length of the run, batch sizes, checkpoints.

    `batch_size` counts records (offline) or prompts (online) per optimizer step;
    `micro_batch_tokens` bounds the tokens of one forward and changes memory, not the result; left
    out, forwards are as large as memory beside weights and optimizer suggests;
    `save_every` 0 writes only the final checkpoint. `skip_nonfinite` updates in a row may be left
    out because loss or gradient is NaN or infinite; after one more, the run goes back to its last
    checkpoint, once, and continues with other data. `sinks` are trackers that also get every row of
    the log; they send nothing off this machine unless the environment tells them to. `notify` are
    those who are told of alarms and of the end. `compile` has torch compile the decoder layers,
    once for rows of any length.
    """

    steps: int | None = Field(None, ge=1)
    epochs: float | None = Field(None, gt=0)
    batch_size: int = Field(32, ge=1)
    micro_batch_tokens: int | None = Field(None, ge=1)
    save_every: int = Field(0, ge=0)
    keep_checkpoints: int = Field(2, ge=1)
    skip_nonfinite: int = Field(3, ge=0)
    sinks: list[Literal["mlflow", "wandb", "trackio"]] = Field(default_factory=list)
    notify: RunNotices = Field(default_factory=list)
    compile: bool = False
    distributed: DistributedRecipe = DistributedRecipe()

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of steps and epochs")
        return self

    @model_validator(mode="after")
    def _sinks_differ(self) -> Self:
        if len(set(self.sinks)) < len(self.sinks):
            raise ValueError(f"sinks names one twice: {', '.join(self.sinks)}")
        return self


class TrainRecipe(Strict):
    """The keys that every method has."""

    method: str
    output: LocalPath
    seed: int = 0
    model: ModelRecipe
    data: MixedSources
    text: TextRecipe = TextRecipe()
    chat_template: TemplatePath | None = None
    template_options: dict[str, Scalar] = Field(default_factory=dict)
    optim: OptimRecipe
    run: RunRecipe
    dev: DevRecipe | None = None

    @property
    def critic(self) -> ValueRecipe | None:
        """The value model that is trained beside the policy (PPO)."""
        return None

    @property
    def taught_by(self) -> Teacher | None:
        """The teacher of a distillation."""
        return None

    @property
    def all_rewards(self) -> list[RewardComponent]:
        """The reward components, those of held-out evaluation included."""
        return []

    @property
    def given_loss(self) -> Callable[..., Any] | None:
        """A user's own loss, given from Python in place of DPO's."""
        return None

    @property
    def turn_tokens(self) -> int:
        """Tokens of an answer's first turn, which have to fit beside the prompt."""
        return self.answer_tokens

    @property
    def answer_tokens(self) -> int:
        """Most tokens of a sampled answer; 0 if nothing is sampled."""
        return 0

    @property
    def mini_batches(self) -> int:
        """The number of updates into which a step's own records are cut."""
        return 1

    @property
    def template(self) -> TemplateRecipe:
        """The chat template of the run; it is saved with the final model."""
        return TemplateRecipe(
            chat_template=self.chat_template,
            template_options=self.template_options,
            end_of_turn=self.text.end_of_turn,
        )

    @model_validator(mode="after")
    def _muon_has_matrices(self) -> Self:
        if self.optim.optimizer == "muon" and self.model.lora is not None:
            raise ValueError("muon is for full weight matrices: use optimizer adamw with lora")
        return self

    @model_validator(mode="before")
    @classmethod
    def _activations(cls, given: Any) -> Any:
        """`run.distributed.activation_checkpointing` is another name of
        `model.gradient_checkpointing`, which all else reads."""
        match given:
            case {"run": {"distributed": {"activation_checkpointing": True}}, "model": model}:
                named = {"path": model} if isinstance(model, str) else model
                if isinstance(named, dict):
                    return {**given, "model": {**named, "gradient_checkpointing": True}}
        return given

    @model_validator(mode="after")
    def _computes_parts_of_what_it_can(self) -> Self:
        if self.run.distributed.tensor > 1:
            refused = {
                "optim.optimizer muon works on whole matrices": self.optim.optimizer == "muon",
                "optim.optimizer adamw_8bit quantizes moments of whole tensors": (
                    self.optim.optimizer == "adamw_8bit"
                ),
                "model.kernels is not tried on matrices in parts": self.model.kernels is not None,
                "model.lora adds to whole matrices": self.model.lora is not None,
                "value.lora adds to whole matrices": bool(self.critic and self.critic.lora),
            }
            for why, is_so in refused.items():
                if is_so:
                    raise ValueError(
                        f"{why}, and run.distributed.tensor computes them in parts: set tensor to "
                        "1, or leave that out"
                    )
        return self

    @model_validator(mode="after")
    def _compiles_what_it_can(self) -> Self:
        if not self.run.compile:
            return self
        refused = {
            "run.distributed cuts the layers": self.run.distributed.cuts,
            "model.quantize reads layers in 4 bits": self.model.quantize is not None,
            "model.kernels fuses the same operations": self.model.kernels is not None,
        }
        for why, is_so in refused.items():
            if is_so:
                raise ValueError(f"{why} that run.compile compiles: drop one of the two")
        return self

    @model_validator(mode="after")
    def _shards_what_it_can(self) -> Self:
        if self.run.distributed.shard == "none":
            return self
        adapters = [lora for lora in (self.model.lora, self.critic and self.critic.lora) if lora]
        refused = {
            "optim.optimizer muon works on whole matrices": self.optim.optimizer == "muon",
            "optim.optimizer adamw_8bit quantizes moments of whole tensors": (
                self.optim.optimizer == "adamw_8bit"
            ),
            "model.lora.dora takes norms of whole matrices": any(lora.dora for lora in adapters),
            "model.kernels is not tried on layers that are gathered": (
                self.model.kernels is not None
            ),
        }
        for why, is_so in refused.items():
            if is_so:
                raise ValueError(
                    f"{why}, and run.distributed.shard cuts them: set shard to none, or leave that "
                    "out"
                )
        return self
