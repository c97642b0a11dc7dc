"""Pipelines: stages in order, each of which a user can also run by hand."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PrivateAttr, ValidationInfo, model_validator

from strop.recipe.base import LocalPath, ModelPath, Strict
from strop.recipe.curate import SampleSettings
from strop.recipe.loading.load import Source
from strop.recipe.notify import PipelineNotices
from strop.recipe.train.data import Sources

Name = Annotated[str, Field(pattern=r"^[\w.-]+$")]
Overrides = Annotated[list[str], Field(min_length=1)]


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


class DecodeStage(Strict):
    """`strop eval decode STUDY --model MODEL --base BASE --output OUTPUT`."""

    kind: Literal["decode"]
    name: Name
    study: LocalPath
    model: ModelPath
    base: ModelPath
    output: LocalPath


class BackTo(Strict):
    """What happens after a gate that does not pass: `stage` is trained again, at most `times`
    times.

    The nth further attempt uses the nth list of `set` (`a.b=c`, as for `--set`); without such a
    list it raises the seed by n, so that no attempt repeats an earlier one.
    """

    stage: Name
    times: int = Field(1, ge=1)
    set: list[Overrides] = Field(default_factory=list)

    @model_validator(mode="after")
    def _every_list_is_used(self) -> Self:
        if len(self.set) > self.times:
            raise ValueError(
                f"set has {len(self.set)} lists for {self.times} further attempts: raise times"
            )
        return self


class GateStage(Strict):
    """`strop gate --policy POLICY --base BASE --candidate CANDIDATE --output OUTPUT`.

    If the verdict is not a pass, the pipeline goes `back_to` an earlier stage as often as allowed.
    After that, `on_refusal: continue` records the refusal and continues; the default stops the
    pipeline.
    """

    kind: Literal["gate"]
    name: Name
    policy: LocalPath
    base: LocalPath
    candidate: LocalPath
    output: LocalPath
    on_refusal: Literal["stop", "continue"] = "stop"
    back_to: BackTo | None = None


class PromoteStage(Strict):
    """`strop registry promote MODEL --entry ENTRY --verdict VERDICT`."""

    kind: Literal["promote"]
    name: Name
    model: LocalPath
    entry: Name
    verdict: LocalPath


class DataStage(Strict):
    """`strop data VERB INPUTS --output OUTPUT`, with the verb's settings as `options`."""

    kind: Literal["data"]
    name: Name
    verb: str
    inputs: Sources
    output: LocalPath
    options: dict[str, Any] = Field(default_factory=dict)


class SampleStage(SampleSettings):
    """`strop data sample INPUTS --model MODEL --output OUTPUT`: answers of a model to prompts."""

    kind: Literal["sample"]
    name: Name
    inputs: Sources
    output: LocalPath


Stage = Annotated[
    TrainStage | EvalStage | DecodeStage | GateStage | PromoteStage | DataStage | SampleStage,
    Field(discriminator="kind"),
]


class Pipeline(Strict):
    """Stages in the order in which they run, and the registry of their promotions.

    The pipeline's state between runs (verdicts, attempts) is stored beside the registry: for
    `registry.db` and the name `algebra` in `registry.algebra.json`. `notify` are those who are told
    of its gates' verdicts and of its end; what they were told is beside it, in
    `registry.algebra.notify.jsonl`.
    """

    name: Name
    registry: LocalPath = Field("registry.db", validate_default=True)
    stages: list[Stage] = Field(min_length=1)
    notify: PipelineNotices = Field(default_factory=list)
    _source: Source | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _names_differ(self, info: ValidationInfo) -> Self:
        names = [stage.name for stage in self.stages]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"stage names have to differ; used twice: {', '.join(twice)}")
        self._source = (info.context or {}).get("source")
        return self

    def options_of(self, stage: DataStage) -> Source:
        """The options of a stage, with their lines in the file."""
        if self._source is None:
            return Source(None, stage.options, {})
        number = [other.name for other in self.stages].index(stage.name)
        head = ("stages", number, "options")
        lines = {
            loc[3:]: line for loc, line in self._source.lines.items() if loc[: len(head)] == head
        }
        return Source(self._source.path, stage.options, lines)

    def place(self, name: str, *loc: str | int) -> str:
        """`file:line` of a stage's key; `stage NAME` for a pipeline without a file."""
        if self._source is None:
            return f"stage {name}"
        number = [stage.name for stage in self.stages].index(name)
        return self._source.place(("stages", number, *loc))
