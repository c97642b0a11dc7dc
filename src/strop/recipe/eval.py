"""Suites: what is measured."""

from __future__ import annotations

from datetime import date as Day  # noqa: N812 - a field is called date
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from strop.recipe.base import LocalPath, Strict
from strop.recipe.likelihood import ChoiceTask, LmEvalTask, PerplexityTask
from strop.recipe.safety import SafetyTask
from strop.recipe.task import AnswerTask, EvalTask
from strop.recipe.template import DAY, Scalar, TemplatePath, TemplateRecipe
from strop.recipe.train.data import Sources
from strop.recipe.train.reward import Rewards


class GenerateTask(AnswerTask):
    """Sample answers and score them; each component becomes the score `<name>/<component>`."""

    kind: Literal["generate"]
    scores: Rewards


class PreferenceTask(EvalTask):
    """Share of held-out pairs whose chosen answer is likelier than the rejected one.

    `per_token` compares mean instead of summed log-probs. With a reference model the displacement
    figures of DESIGN section 8 are measured too.
    """

    kind: Literal["preference"]
    data: Sources
    per_token: bool = False


class PythonTask(EvalTask):
    """A function of the user's own: `function(generate, seed)` in `file` yields
    `{"item", "score"[, "cluster"][, "output"]}`, where `generate(prompts, temperature=0.0,
    max_tokens=256)` asks the model that is measured."""

    kind: Literal["python"]
    file: LocalPath
    function: str = "evaluate"


AnyTask = Annotated[
    GenerateTask
    | PreferenceTask
    | ChoiceTask
    | PerplexityTask
    | SafetyTask
    | PythonTask
    | LmEvalTask,
    Field(discriminator="kind"),
]


class Suite(Strict):
    """A named set of tasks with a seed.

    `sealed` says that these items are for the last look before a promotion: every look is counted,
    and a training run may not measure on them. `chat_template` and `template_options` replace what
    the model's folder says; `date` is the day that a template writes, if it writes one.
    """

    name: str
    seed: int = 0
    chat_template: TemplatePath | None = None
    template_options: dict[str, Scalar] = Field(default_factory=dict)
    date: Day = DAY
    sealed: bool = False
    tasks: list[AnyTask] = Field(min_length=1)

    @property
    def template(self) -> TemplateRecipe:
        """How conversations are written."""
        return TemplateRecipe(
            chat_template=self.chat_template, template_options=self.template_options
        )

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [task.name for task in self.tasks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"task names have to differ; used twice: {', '.join(twice)}")
        return self
