"""What the tasks of an eval ask of an engine."""

from __future__ import annotations

from collections.abc import Sequence

from strop.engines.draws import DrawKey
from strop.engines.engine import Engine, PromptedTask, in_groups, requests_of, sampling_of
from strop.engines.local.engine import LocalEngine
from strop.engines.openai import OpenAIEngine
from strop.engines.recorded import RecordedEngine
from strop.errors import UsageError
from strop.recipe.train.rollout import SamplingRecipe
from strop.types import Answer, Answered, Completion, Rollout, Task


def as_engine(engine: Engine | str) -> Engine:
    """A text is a model folder or hub name."""
    return LocalEngine(engine) if isinstance(engine, str) else engine


def ask(
    engine: Engine, tasks: Sequence[Task], sampling: SamplingRecipe, samples: int, seed: int
) -> list[Rollout | Answered]:
    """`samples` answers to every task, in order. The same for a task whatever its company."""
    how = sampling_of(sampling)
    prompts = engine.prompted(tasks, how)
    requests = requests_of(prompts, how, DrawKey(seed, "eval"), samples)
    groups = in_groups(engine.generate(requests), samples)
    return [answered(prompt, group) for prompt, group in zip(prompts, groups, strict=True)]


def answered(prompt: PromptedTask, answers: Sequence[Answer]) -> Rollout | Answered:
    """A rollout where the engine gave tokens."""
    completions = tuple(answer for answer in answers if isinstance(answer, Completion))
    if len(completions) < len(answers):
        return Answered(prompt.task, tuple(answers))
    return Rollout(prompt.task, prompt.prompt_ids, completions)


def find_engine(
    model: str | None, endpoint: str | None = None, outputs: str | None = None
) -> Engine:
    """Whom to measure: a model folder or hub name, a model of that name behind an
    OpenAI-compatible `endpoint`, or recorded `outputs`.

    Raises `UsageError` for nobody and for two at once.
    """
    if outputs is not None:
        if model is not None or endpoint is not None:
            raise UsageError("--outputs are answers already given: drop --model and --endpoint")
        return RecordedEngine(outputs)
    if model is None:
        raise UsageError(
            "whom to measure?", fix="give --model FOLDER, --endpoint URL --model NAME, or --outputs"
        )
    return LocalEngine(model) if endpoint is None else OpenAIEngine(endpoint, model)
