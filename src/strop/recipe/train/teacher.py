"""Teachers in recipes: who a student learns from, and what the teacher reads."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, Tag, model_validator

from strop.recipe.base import LocalPath, Strict
from strop.recipe.train.engine import HoldersRecipe
from strop.recipe.train.model import NamedModel
from strop.recipe.train.telling import tag, told_by


class View(Strict):
    """What a teacher reads in place of the student's prompt, if anything.

    `prompt` names a column of the records that holds the teacher's prompt (one with a hint, the
    answer, a longer thought); `system` is a system message that only the teacher reads.
    """

    prompt: str | None = Field(None, min_length=1)
    system: str | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Self:
        if self.prompt is not None and self.system is not None:
            raise ValueError(
                "system is put before the student's prompt, and prompt replaces that: write the "
                "system message into the column, and drop system"
            )
        return self

    @property
    def is_informed(self) -> bool:
        """Whether the teacher reads another prompt than the student."""
        return self.prompt is not None or self.system is not None


class ModelTeacher(NamedModel, View):
    """A frozen model by its `path` (a folder or a hub name); `teacher: folder` is short for
    `teacher: {path: folder}`.

    `dtype` is the precision it is loaded in (by default its own); `quantize: nf4` stores its
    weights in 4 bits. `engine: {kind: vllm, url: ...}` has servers that hold the folder score
    given tokens in place of this process. A folder with the student's own weights loads nothing:
    the student's weights at the start are the teacher. An adapter over the base that the student
    trains an adapter on, too, shares that base, unless `dtype` or `quantize` ask for it in another
    form.
    """

    dtype: Literal["float32", "bfloat16"] | None = None
    quantize: Literal["nf4"] | None = None
    trust_remote_code: bool = False
    engine: HoldersRecipe | None = None

    @property
    def is_served(self) -> bool:
        return self.engine is not None

    @model_validator(mode="after")
    def _servers_have_their_own(self) -> Self:
        if self.is_served and (self.dtype or self.quantize):
            raise ValueError("dtype and quantize are the servers' own where engine names them")
        return self


class OwnTeacher(View):
    """The model itself, which reads a better-informed prompt: as it is at the `start` of the run,
    or as it is now (`current`)."""

    own: Literal["start", "current"]

    @model_validator(mode="after")
    def _knows_more(self) -> Self:
        if not self.is_informed:
            raise ValueError(
                "the same model with the same prompt has nothing to teach: set prompt (a column) "
                "or system, or weigh a KL to the start with a reward (objective.beta of grpo)"
            )
        return self


class RecordedTeacher(Strict):
    """Log-probs that a teacher gave these records in an earlier run (its `teacher.safetensors`)."""

    recorded: LocalPath

    @property
    def is_informed(self) -> bool:
        """What it read was decided when they were recorded."""
        return False


KINDS: dict[str, type[Strict]] = {
    "path": ModelTeacher,
    "own": OwnTeacher,
    "recorded": RecordedTeacher,
}

PROBLEM = "a teacher is a folder, {path: FOLDER}, {own: start or current} or {recorded: FILE}"


def _named(given: Any) -> Any:
    return {"path": given} if isinstance(given, str) else given


AnyTeacher = Annotated[
    Annotated[ModelTeacher, Tag(tag("path"))]
    | Annotated[OwnTeacher, Tag(tag("own"))]
    | Annotated[RecordedTeacher, Tag(tag("recorded"))],
    told_by(KINDS, PROBLEM),
    BeforeValidator(_named),
]
"""A teacher of answers that are known before the run."""

LivingTeacher = Annotated[
    Annotated[ModelTeacher, Tag(tag("path"))] | Annotated[OwnTeacher, Tag(tag("own"))],
    told_by(
        {"path": ModelTeacher, "own": OwnTeacher},
        "a teacher of the student's own samples is a folder, {path: FOLDER} or {own: start or "
        "current}: nothing can be recorded of answers that are not written yet",
    ),
    BeforeValidator(_named),
]
"""A teacher that can be asked about new answers."""

Teacher = ModelTeacher | OwnTeacher | RecordedTeacher
