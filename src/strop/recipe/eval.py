"""Suites (what is measured) and policies (what the gate demands)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from strop.recipe.base import Strict
from strop.recipe.data import Sources
from strop.recipe.reward import Rewards
from strop.recipe.rollout import SamplingRecipe


class GenerateTask(Strict):
    """Sample answers and score them; each component becomes the score `<name>/<component>`."""

    kind: Literal["generate"]
    name: str = Field(pattern=r"^[\w.-]+$")
    data: Sources
    sampling: SamplingRecipe = SamplingRecipe(temperature=0.0)
    samples: int = Field(1, ge=1)
    scores: Rewards


class PreferenceTask(Strict):
    """Share of held-out pairs whose chosen answer is likelier than the rejected one.

    `per_token` compares mean instead of summed log-probs.
    """

    kind: Literal["preference"]
    name: str = Field(pattern=r"^[\w.-]+$")
    data: Sources
    per_token: bool = False


EvalTask = Annotated[GenerateTask | PreferenceTask, Field(discriminator="kind")]


class Suite(Strict):
    """A named set of tasks with a seed."""

    name: str
    seed: int = 0
    tasks: list[EvalTask] = Field(min_length=1)


class Target(Strict):
    """A score that has to rise: lower 95 % bound of the paired difference above `min_gain`."""

    score: str
    min_gain: float = Field(0.0, ge=0)


class Guardrail(Strict):
    """A score that must not fall: lower 95 % bound of the difference above `-margin`."""

    score: str
    margin: float = Field(0.02, gt=0)


class Policy(Strict):
    """What a candidate has to show before it may be promoted."""

    targets: list[Target] = Field(default_factory=list)
    guardrails: list[Guardrail] = Field(default_factory=list)
    alpha: float = Field(0.05, gt=0, lt=0.5)
