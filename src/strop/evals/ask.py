"""Asks an engine for answers to the tasks of an eval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from strop.engines.build import folder_engine
from strop.engines.draws import DrawKey
from strop.engines.engine import Engine, PromptedTask, in_groups, requests_of, sampling_of
from strop.engines.openai import OpenAIEngine
from strop.engines.recorded import RecordedEngine
from strop.engines.served.fixed import FixedEngine
from strop.errors import UsageError
from strop.recipe.engine import LOCAL, FolderEngineRecipe
from strop.recipe.train.rollout import SamplingRecipe
from strop.types import Answer, Answered, Completion, Rollout, Task


def as_engine(engine: Engine | str, recipe: FolderEngineRecipe = LOCAL) -> Engine:
    """The engine itself, or for a model folder or hub name the one that the recipe says.

    Raises `UsageError` for an engine beside a recipe that names servers for a folder.
    """
    if isinstance(engine, str):
        return folder_engine(engine, recipe)
    if recipe.kind != "local" and not isinstance(engine, FixedEngine):
        raise UsageError(
            f"`engine` names {recipe.kind} servers for a model folder, and something else is asked",
            fix="drop it, or give a model folder and no endpoint, outputs or engine of your own",
        )
    return engine


def ask(
    engine: Engine, tasks: Sequence[Task], sampling: SamplingRecipe, samples: int, seed: int
) -> list[Rollout | Answered]:
    """`samples` answers to every task, in order, with entropies where the engine gives them. A
    task's answers do not depend on the other tasks."""
    how = replace(sampling_of(sampling), entropies=True)
    prompts = engine.prompted(tasks, how)
    requests = requests_of(prompts, how, DrawKey(seed, "eval"), samples)
    groups = in_groups(engine.generate(requests), samples)
    return [answered(prompt, group) for prompt, group in zip(prompts, groups, strict=True)]


def answered(prompt: PromptedTask, answers: Sequence[Answer]) -> Rollout | Answered:
    """A rollout if the engine returned tokens, else the texts alone."""
    completions = tuple(answer for answer in answers if isinstance(answer, Completion))
    if len(completions) < len(answers):
        return Answered(prompt.task, tuple(answers))
    return Rollout(prompt.task, prompt.prompt_ids, completions)


def find_engine(
    model: str | None,
    endpoint: str | None = None,
    outputs: str | None = None,
    recipe: FolderEngineRecipe = LOCAL,
) -> Engine:
    """The engine to measure: a model folder or hub name, in this process or on the servers of
    `recipe`; a model of that name behind an OpenAI-compatible `endpoint`; or recorded `outputs`.

    Raises `UsageError` if none or several of them are given.
    """
    if outputs is not None:
        if model is not None or endpoint is not None:
            raise UsageError("--outputs are answers already given: drop --model and --endpoint")
        return as_engine(RecordedEngine(outputs), recipe)
    if model is None:
        raise UsageError(
            "no engine to measure was given",
            fix="give --model FOLDER, --endpoint URL --model NAME, or --outputs",
        )
    return as_engine(model if endpoint is None else OpenAIEngine(endpoint, model), recipe)
