"""What all tasks of a suite share."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from strop.recipe.base import Strict
from strop.recipe.train.data import Sources
from strop.recipe.train.rollout import SamplingRecipe

TaskName = Annotated[str, Field(pattern=r"^[\w.-]+$")]


class EvalTask(Strict):
    """A named question to a model. `slices` are columns of the data whose groups are looked at one
    by one (advice beside the verdict, never part of it)."""

    name: TaskName
    slices: list[str] = Field(default_factory=list)


class AnswerTask(EvalTask):
    """A task whose prompts are answered, `samples` times each."""

    data: Sources
    sampling: SamplingRecipe = SamplingRecipe(temperature=0.0)
    samples: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        if self.samples > 1 and self.sampling.temperature == 0:
            raise ValueError(
                f"at temperature 0 all {self.samples} samples are one: raise it or drop samples"
            )
        return self
