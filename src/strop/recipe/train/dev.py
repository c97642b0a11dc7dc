"""A suite that is measured during a run, and the choice of the final checkpoint by it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from strop.recipe.base import LocalPath, Strict


class DevRecipe(Strict):
    """A suite measured on the model in training: before step 1, every `every` steps, at the end.

    `metric` is the score of the suite that chooses the best checkpoint (the highest, the earlier of
    two equal ones); `final` says whether the run ends with that one or with its last step.
    `general` are scores that must not fall: one counts as fallen if it is more than `tolerance`
    below its value before step 1 (`alarms.capability_regression`).
    """

    suite: LocalPath
    every: int = Field(100, ge=1)
    metric: str
    general: list[str] = Field(default_factory=list)
    tolerance: float = Field(0.02, ge=0)
    final: Literal["best", "last"] = "best"

    @model_validator(mode="after")
    def _scores_differ(self) -> Self:
        named = [self.metric, *self.general]
        twice = sorted({name for name in named if named.count(name) > 1})
        if twice:
            raise ValueError(
                f"{twice[0]} is named twice in metric and general: a score is the target or may "
                "not fall"
            )
        return self

    @model_validator(mode="after")
    def _tolerance_is_read(self) -> Self:
        usual = type(self).model_fields["tolerance"].default
        if self.tolerance != usual and not self.general:
            raise ValueError("tolerance is only read with general: name the scores, or drop it")
        return self
