"""What each method optimises: only the options that the method reads."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from strop.recipe.base import Strict


class DpoObjective(Strict):
    """DPO; `nll_weight` adds that many times the mean token NLL of the chosen answer (RPO)."""

    beta: float = Field(0.1, gt=0)
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    nll_weight: float = Field(0.0, ge=0)


class PolicyObjective(Strict):
    """GRPO and its family. `None` takes the value of the method's paper.

    `beta` is the weight of the KL to the starting model; 0 loads no reference.
    """

    beta: float = Field(0.0, ge=0)
    kl: Literal["k1", "k2", "k3"] | None = None
    epsilon_low: float | None = Field(None, gt=0, lt=1)
    epsilon_high: float | None = Field(None, gt=0)
    dual_clip: float | None = Field(None, gt=1)

    @model_validator(mode="after")
    def _kl_is_used(self) -> Self:
        if self.kl is not None and self.beta == 0:
            raise ValueError("kl is set but beta is 0, so no KL is computed: set beta or drop kl")
        return self
