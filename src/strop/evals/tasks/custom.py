"""Tasks that a user wrote in Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from strop.engines.engine import Engine
from strop.errors import DataError, EndedBySignal, UsageError
from strop.evals.ask import ask
from strop.evals.records import record_from
from strop.recipe.suite import PythonTask
from strop.recipe.train.rollout import SamplingRecipe
from strop.rewards.own.functions import own_names
from strop.types import FAILED, EvalRecord, Origin, Task, Text


def own_records(recipe: PythonTask, engine: Engine, seed: int) -> list[EvalRecord]:
    """The records that the user's function yields, named `<task>` or `<task>/<its own name>`."""
    function = task_function(recipe)
    try:
        rows = list(function(generate=_asker(recipe, engine, seed), seed=seed))
    except EndedBySignal:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"{recipe.function} raised {type(error).__name__}: {error}", where=recipe.file,
            fix="mend the function; the tasks measured before it are kept",
        ) from error  # fmt: skip
    if not rows:
        raise DataError(f"{recipe.function} yielded no items", where=recipe.file)
    return [_named(recipe, row, number) for number, row in enumerate(rows, 1)]


def task_function(recipe: PythonTask) -> Callable[..., Any]:
    """The function of the user's file; `UsageError` where there is none."""
    function = own_names(Path(recipe.file)).get(recipe.function)
    if not callable(function):
        raise UsageError(
            f"the file has no function {recipe.function!r}", where=recipe.file,
            fix=f"define {recipe.function}(generate, seed), yielding "
            '{"item": "7", "score": 1.0}',
        )  # fmt: skip
    return function  # type: ignore[no-any-return]


def _named(recipe: PythonTask, row: Any, number: int) -> EvalRecord:
    where = f"{recipe.file}: item {number} of {recipe.function}"
    if not isinstance(row, Mapping):
        raise DataError(f"yielded {row!r}", where=where, fix='yield {"item": "7", "score": 1.0}')
    name = f"{recipe.name}/{row['task']}" if "task" in row else recipe.name
    return record_from({**row, "task": name}, where)


def _asker(recipe: PythonTask, engine: Engine, seed: int) -> Callable[..., list[str | None]]:
    """What a user's function asks with; `None` in place of an answer that failed or was called
    off."""

    def generate(
        prompts: Sequence[Text], temperature: float = 0.0, max_tokens: int = 256
    ) -> list[str | None]:
        tasks = [Task(prompt, {}, Origin(recipe.file, n)) for n, prompt in enumerate(prompts, 1)]
        sampling = SamplingRecipe(temperature=temperature, max_tokens=max_tokens)
        rollouts = ask(engine, tasks, sampling, 1, seed) if tasks else []
        answers = [rollout.completions[0] for rollout in rollouts]
        return [None if answer.finish in FAILED else answer.said for answer in answers]

    return generate
