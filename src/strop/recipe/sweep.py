"""Sweeps: one recipe at several values of a few keys, measured by a suite."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from strop.recipe.base import LocalPath, ModelPath, Strict

BETAS: list[float | int | str | bool] = [0.05, 0.1, 0.2, 0.3, 0.5]
"""Values of beta to start with: Rafailov et al. 2023 (arXiv 2305.18290, appendix B) use 0.1 to 0.5,
and Ivison et al. 2024 (arXiv 2406.09279) find 0.05 to 0.1 best for chat."""
MOST = 64

Value = float | int | str | bool
Share = Annotated[float, Field(gt=0, le=1)]


class SweepRecipe(Strict):
    """A training `recipe` at every combination of the values in `vary`, in successive halving.

    Each of the `rungs` is a share of the recipe's length. On every rung but the last the better
    part, `keep` of the values, goes on by the mean of `target`, a score of the `suite`. A rung
    trains from the start again, with a schedule of its own length. `general` are scores that must
    not fall. `reference` is the model that KL is measured against: the one that training starts
    from, unless said.
    """

    recipe: LocalPath
    output: LocalPath
    vary: dict[str, list[Value]] = Field(default_factory=lambda: {"objective.beta": list(BETAS)})
    suite: LocalPath
    target: str
    general: list[str] = Field(default_factory=list)
    reference: ModelPath | None = None
    rungs: list[Share] = Field([0.25, 1.0], min_length=1)
    keep: Share = 0.5

    @field_validator("vary")
    @classmethod
    def _values_differ(cls, vary: dict[str, list[Value]]) -> dict[str, list[Value]]:
        for key, values in vary.items():
            if len(set(values)) < 2 or len(set(values)) < len(values):
                raise ValueError(f"{key} needs two values or more, each once: got {values}")
        if not vary:
            raise ValueError("nothing is varied: name a key with its values")
        return vary

    @model_validator(mode="after")
    def _rungs_rise(self) -> Self:
        if self.rungs != sorted(set(self.rungs)) or self.rungs[-1] != 1.0:
            raise ValueError(f"rungs have to rise and to end at 1.0: got {self.rungs}")
        count = 1
        for values in self.vary.values():
            count *= len(values)
        if count > MOST:
            raise ValueError(f"{count} combinations are more than {MOST}: vary fewer keys")
        return self
