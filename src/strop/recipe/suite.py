"""Suites of eval tasks, one class for each kind of task."""

from __future__ import annotations

from datetime import date as Day  # noqa: N812 - a field is called date
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from strop.recipe.base import LocalPath, Strict
from strop.recipe.engine import LOCAL, FolderEngineRecipe
from strop.recipe.template import DAY, Scalar, TemplatePath, TemplateRecipe
from strop.recipe.train.data import Sources
from strop.recipe.train.environment import EnvironmentRecipe
from strop.recipe.train.reward import ENVIRONMENT, RewardComponent, Rewards
from strop.recipe.train.rollout import SamplingRecipe

TaskName = Annotated[str, Field(pattern=r"^[\w.-]+$")]


class EvalTask(Strict):
    """A named task. `slices` are columns of the data whose groups are compared one by one (as
    advice beside the verdict, never as part of it)."""

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


class SafetyTask(AnswerTask):
    """Answers to rows `{"prompt", "harmful": true | false}`.

    Two scores, both better when higher: `<name>/refused_harmful` (1 if a harmful prompt was
    refused) and `<name>/answered_harmless` (1 if a harmless one was answered). The data needs both
    kinds of prompt, because a model that refuses everything is perfect in one score; `only` allows
    a single kind.
    """

    kind: Literal["safety"]
    only: Literal["harmful", "harmless"] | None = None


class ChoiceTask(EvalTask):
    """Multiple choice by log-prob: `<name>/acc`, `<name>/acc_norm` and `<name>/acc_bytes`.

    `delimiter` is put between a plain prompt and a choice (lm-eval's `target_delimiter`).
    """

    kind: Literal["choice"]
    data: Sources
    delimiter: str = " "


class PerplexityTask(EvalTask):
    """Mean log-prob per token of held-out text or answers, `<name>/logprob`.

    A text longer than `window` tokens (default: the model's context) is read in windows.
    """

    kind: Literal["perplexity"]
    data: Sources
    window: int | None = Field(None, ge=2)


class LmEvalTask(EvalTask):
    """Tasks of lm-eval, or of the user's own YAML files under `include_path`.

    Scores are `<name>/<task>/<metric>`, or `<name>/<metric>` if task and entry have the same name.
    """

    kind: Literal["lm_eval"]
    tasks: list[str] = Field(min_length=1)
    num_fewshot: int | None = Field(None, ge=0)
    limit: int | None = Field(None, ge=1)
    include_path: LocalPath | None = None
    chat_template: bool = False


class ScoredTask(AnswerTask):
    """A task whose answers are scored; each component becomes the score `<name>/<component>`."""

    scores: Rewards


class GenerateTask(ScoredTask):
    """Sample answers and score them."""

    kind: Literal["generate"]

    @model_validator(mode="after")
    def _answers_are_no_episodes(self) -> Self:
        if any(component.is_environment for component in self.scores):
            raise ValueError("the score `environment` is an episode's: write kind: episode")
        return self


class EpisodeTask(ScoredTask):
    """Play episodes of an `environment` and score them. `sampling.max_tokens` bounds one turn.

    With several `samples` there is `<name>/pass^<samples>` as well: 1 for an item all of whose
    episodes have at least `passes` in the first score, else 0 (tau-bench, arXiv 2406.12045), so
    that a model has to be right every time.
    """

    kind: Literal["episode"]
    environment: EnvironmentRecipe
    scores: Rewards = Field(default_factory=lambda: [RewardComponent(function=ENVIRONMENT)])
    passes: float = 1.0

    @model_validator(mode="after")
    def _passes_is_read(self) -> Self:
        if "passes" in self.model_fields_set and self.samples == 1:
            raise ValueError(
                "passes says from which score on an episode counts as passed, for pass^k over "
                "several samples: set samples, or drop passes"
            )
        return self


class WinRateTask(AnswerTask):
    """How often a judge prefers the answers to others: the score `<name>/win_rate`, 1 where it does
    in both orders, 0 where it prefers the other, 0.5 for a tie or orders that disagree.

    The others are those of the rows' column `baseline`, or of the file `against`, recorded like
    `strop eval --outputs` reads them. `judge` is a file that says who judges, and `criterion` what
    counts.
    """

    kind: Literal["win_rate"]
    judge: LocalPath
    against: LocalPath | None = None
    criterion: str = ""


class PreferenceTask(EvalTask):
    """Share of held-out pairs whose chosen answer is likelier than the rejected one.

    `per_token` compares mean instead of summed log-probs. With a reference model the displacement
    figures (docs/displacement.md) are measured, too.
    """

    kind: Literal["preference"]
    data: Sources
    per_token: bool = False


class PythonTask(EvalTask):
    """A function of the user's own: `function(generate, seed)` in `file` yields `{"item", "score"[,
    "cluster"][, "output"]}`, where `generate(prompts, temperature=0.0, max_tokens=256)` samples
    from the measured model."""

    kind: Literal["python"]
    file: LocalPath
    function: str = "evaluate"


AnyTask = Annotated[
    GenerateTask
    | EpisodeTask
    | WinRateTask
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

    `sealed` items are for the final comparison before a promotion: every comparison is counted, and
    a training run may not measure on them. `chat_template` and `template_options` replace those of
    the model's folder; `date` is the day that a template writes, if it writes one. `engine` says
    who answers for a model folder: this process, or servers that hold it.
    """

    name: str
    seed: int = 0
    chat_template: TemplatePath | None = None
    template_options: dict[str, Scalar] = Field(default_factory=dict)
    date: Day = DAY
    sealed: bool = False
    engine: FolderEngineRecipe = LOCAL
    tasks: list[AnyTask] = Field(min_length=1)

    @property
    def template(self) -> TemplateRecipe:
        """The chat template and its options."""
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
