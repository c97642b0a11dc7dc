"""Pipelines: stages in order, each a file the user can also run by hand."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from strop.recipe.base import LocalPath, ModelPath, Strict

Name = Annotated[str, Field(pattern=r"^[\w.-]+$")]


class TrainStage(Strict):
    """`strop train RECIPE`; `force` accepts what the recipe check would refuse."""

    kind: Literal["train"]
    name: Name
    recipe: LocalPath
    force: bool = False


class EvalStage(Strict):
    """`strop eval SUITE --model MODEL --reference REFERENCE --output OUTPUT`."""

    kind: Literal["eval"]
    name: Name
    suite: LocalPath
    model: ModelPath
    reference: ModelPath | None = None
    output: LocalPath


class GateStage(Strict):
    """`strop gate --policy POLICY --base BASE --candidate CANDIDATE --output OUTPUT`.

    `on_refusal: continue` records a refusal and goes on; the default stops the pipeline.
    """

    kind: Literal["gate"]
    name: Name
    policy: LocalPath
    base: LocalPath
    candidate: LocalPath
    output: LocalPath
    on_refusal: Literal["stop", "continue"] = "stop"


class PromoteStage(Strict):
    """`strop registry promote MODEL --entry ENTRY --verdict VERDICT`."""

    kind: Literal["promote"]
    name: Name
    model: LocalPath
    entry: Name
    verdict: LocalPath


Stage = Annotated[TrainStage | EvalStage | GateStage | PromoteStage, Field(discriminator="kind")]


class Pipeline(Strict):
    """Stages in order and the registry they promote into."""

    name: str
    registry: LocalPath = Field("registry.db", validate_default=True)
    stages: list[Stage] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [stage.name for stage in self.stages]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"stage names have to differ; used twice: {', '.join(twice)}")
        return self
