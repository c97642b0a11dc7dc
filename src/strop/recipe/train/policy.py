"""Objectives of methods that train on their own samples, each with only the options that it
reads."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from strop.recipe.base import Strict
from strop.recipe.train.model import LoraRecipe, NamedModel

KlName = Literal["k1", "k2", "k3"]


class OnlineObjective(Strict):
    """Options that every policy-gradient method can be combined with; `None` takes the paper's
    value.

    `beta` weighs the KL to the starting model (0 loads no reference), `kl` is its estimator,
    `kl_in` makes it a term of the loss or part of the reward. With `kl_weighted` the loss term is
    multiplied by the importance ratio. Every `refresh_every` steps the reference becomes the
    policy.
    """

    beta: float = Field(0.0, ge=0)
    kl: KlName | None = None
    kl_in: Literal["loss", "reward"] | None = None
    kl_weighted: bool | None = None
    refresh_every: int = Field(0, ge=0)
    entropy_weight: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _kl_is_used(self) -> Self:
        about_kl = {"kl": self.kl, "kl_in": self.kl_in, "kl_weighted": self.kl_weighted,
                    "refresh_every": self.refresh_every}  # fmt: skip
        unused = [name for name, value in about_kl.items() if value]
        if unused and self.beta == 0:
            raise ValueError(
                f"{unused[0]} is set but beta is 0, so there is no KL and no reference: "
                "set beta or drop it"
            )
        return self

    @property
    def updates(self) -> tuple[int, int]:
        """Passes over a step's samples, and updates in each."""
        return 1, 1

    def loss_options(self) -> dict[str, Any]:
        """The arguments for the method's preset: all options of the loss that are set."""
        given = self.model_dump(exclude_none=True)
        return {name: value for name, value in given.items() if name not in LOOP_OPTIONS}


class RepeatedObjective(OnlineObjective):
    """Methods whose ratio allows several updates over one batch of samples.

    A step makes `num_iterations` passes over its samples, each in `mini_batches` updates.
    """

    num_iterations: int = Field(1, ge=1)
    mini_batches: int = Field(1, ge=1)

    @property
    def updates(self) -> tuple[int, int]:
        return self.num_iterations, self.mini_batches


class ClipObjective(RepeatedObjective):
    """GRPO, DAPO, Dr. GRPO: the ratio is cut to [1 - low, 1 + high]."""

    epsilon_low: float | None = Field(None, gt=0, lt=1)
    epsilon_high: float | None = Field(None, gt=0)
    dual_clip: float | None = Field(None, gt=1)


class RlooObjective(OnlineObjective):
    """RLOO: one update per batch of samples, KL inside the reward."""

    beta: float = Field(0.05, ge=0)


class ReinforceObjective(ClipObjective):
    """REINFORCE++: as GRPO, with the KL inside the reward."""

    beta: float = Field(0.01, ge=0)


class SequenceClipObjective(RepeatedObjective):
    """GSPO (the sequence's ratio is cut) and GMPO (each token's log-ratio is)."""

    epsilon_low: float | None = Field(None, gt=0, lt=1)
    epsilon_high: float | None = Field(None, gt=0)


class CispoObjective(RepeatedObjective):
    """CISPO: the weight on log-probs is cut at 1 + `epsilon_high`."""

    epsilon_high: float | None = Field(None, gt=0)


class SapoObjective(RepeatedObjective):
    """SAPO: temperatures of the soft gate for good and for bad tokens."""

    temperature_positive: float | None = Field(None, gt=0)
    temperature_negative: float | None = Field(None, gt=0)


class PpoObjective(ClipObjective):
    """PPO; `gae_lambda` and `gamma` shape the advantage, `value_clip` bounds the critic's move."""

    beta: float = Field(0.02, ge=0)
    gamma: float = Field(1.0, gt=0, le=1)
    gae_lambda: float = Field(0.95, ge=0, le=1)
    value_clip: float = Field(0.2, gt=0)


LOOP_OPTIONS = frozenset(
    {
        "refresh_every", "num_iterations", "mini_batches", "gamma", "gae_lambda", "value_clip",
        "discount", "teacher_weight", "length_normalized", "mix",
    }
)  # fmt: skip
"""Options of the loop around a loss, not of the loss itself."""


class ValueRecipe(NamedModel):
    """PPO's critic: a model with a scalar head (a reward model, or any model: a fresh head)."""

    learning_rate: float = Field(gt=0)
    lora: LoraRecipe | None = None


class OnlineDpoObjective(Strict):
    """Online DPO: the best against the worst of each group, by reward."""

    beta: float = Field(0.1, gt=0)
    loss: Literal["dpo", "ipo", "hinge"] = "dpo"
    refresh_every: int = Field(0, ge=0)


class RaftObjective(Strict):
    """Rejection-sampling fine-tuning: the best answer of each group is trained on if its reward is
    at least `min_reward`."""

    min_reward: float | None = None


AnyPolicyObjective = (
    ClipObjective | SequenceClipObjective | CispoObjective | SapoObjective | PpoObjective
    | OnlineObjective
)  # fmt: skip
