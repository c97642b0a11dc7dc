"""How completions are sampled."""

from __future__ import annotations

from pydantic import Field

from strop.recipe.base import Strict


class SamplingRecipe(Strict):
    """Temperature 0 is greedy; truncations apply after temperature: top_k, top_p, min_p."""

    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    min_p: float = Field(0.0, ge=0, lt=1)
    max_tokens: int = Field(256, ge=1)
    stop: list[str] = Field(default_factory=list)


class RolloutRecipe(Strict):
    """`group_size` completions for each prompt of a step.

    `mask_truncated` leaves completions that hit `max_tokens` out of the loss (they still count in
    its denominator); `mismatch_limit` is the largest mean difference between the sampler's and
    the trainer's log-probs, nats per token, that the self-check before step 1 accepts.
    """

    group_size: int = Field(8, ge=2)
    temperature: float = Field(1.0, gt=0)
    max_tokens: int = Field(256, ge=1)
    stop: list[str] = Field(default_factory=list)
    mask_truncated: bool = False
    mismatch_limit: float = Field(0.05, gt=0)
