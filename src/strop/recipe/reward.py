"""What a completion is worth."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from strop.recipe.base import LocalPath, ModelPath, Strict


class RewardComponent(Strict):
    """One reward function: a built-in by name, or `function` in the user's own file.

    `options` are passed on as keyword arguments; `model` is the folder of a `reward_model`; `name`
    labels it in logs (default: `function`).
    """

    function: str
    file: LocalPath | None = None
    model: ModelPath | None = None
    weight: float = 1.0
    name: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _model_is_read(self) -> Self:
        if (self.function == "reward_model" and self.file is None) != (self.model is not None):
            raise ValueError("`model` goes with function: reward_model, and that needs it")
        return self

    @property
    def label(self) -> str:
        return self.name or self.function


def _labels_differ(components: list[RewardComponent]) -> list[RewardComponent]:
    labels = [component.label for component in components]
    if len(set(labels)) < len(labels):
        raise ValueError(f"two reward components share a name ({labels}): give one a `name`")
    return components


Rewards = Annotated[list[RewardComponent], AfterValidator(_labels_differ), Field(min_length=1)]
"""Components that are added up; each is logged under its own name."""
