"""Several rewards as one number per completion, with every component kept.

The total is the weighted sum. A completion that any component could not judge (`None`, an
exception, a number that is not finite) has no total: unscored is not zero.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from strop.errors import DataError, RewardError
from strop.model.load import expect_weights, has_scalar_head
from strop.recipe.reward import RewardComponent
from strop.rewards.exact import exact_answer
from strop.rewards.format import format_tags
from strop.rewards.reward_model import reward_model
from strop.types import Failure, Judged, Rollout, Score, Task, Text

RewardFunction = Callable[..., Sequence[float | None]]

BUILT_IN: dict[str, RewardFunction] = {
    "exact_answer": exact_answer,
    "format_tags": format_tags,
    "reward_model": reward_model,
}


GIVEN = ("prompts", "completions", "completion_ids", "model")
"""What a reward function is always given, besides the tasks' own columns."""


class Reward:
    """A weighted composition of reward functions."""

    def __init__(self, components: Sequence[RewardComponent]) -> None:
        self.components = [(component, find_function(component)) for component in components]

    def expect_columns(self, tasks: Sequence[Task]) -> None:
        """Raise `DataError` for the first task without a column that a reward asks for."""
        for component, function in self.components:
            wanted = [
                name
                for name, parameter in inspect.signature(function).parameters.items()
                if parameter.default is parameter.empty
                and parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
                and name not in (*GIVEN, *component.options)
            ]
            for task in tasks:
                missing = [name for name in wanted if name not in task.columns]
                if missing:
                    raise DataError(
                        f"reward {component.label} reads the column `{missing[0]}`; found "
                        f"{{{', '.join(['prompt', *task.columns])}}}",
                        where=str(task.origin),
                        fix="add the column to every task, or choose another reward",
                    )

    def judge(
        self,
        prompts: Sequence[Text],
        completions: Sequence[Text],
        columns: Mapping[str, Sequence[Any]],
    ) -> Judged:
        """One score per completion; a component that raises leaves its completions unscored."""
        by_name: dict[str, list[float | None]] = {}
        failures: list[Failure] = []
        for component, function in self.components:
            values, failure = _call(component, function, prompts, completions, columns)
            by_name[component.label] = values
            failures += [failure] if failure else []
        scores = []
        for number in range(len(completions)):
            parts = {name: values[number] for name, values in by_name.items()}
            scores.append(Score(self._total(parts), parts))
        return Judged(tuple(scores), tuple(failures))

    def judge_rollouts(self, rollouts: Sequence[Rollout]) -> Judged:
        """Scores of all completions of all rollouts, rollout by rollout."""
        flat = [(rollout.task, c) for rollout in rollouts for c in rollout.completions]
        names = sorted({name for task, _ in flat for name in task.columns})
        columns: dict[str, list[Any]] = {
            name: [task.columns.get(name) for task, _ in flat] for name in names
        }
        columns["completion_ids"] = [list(completion.ids) for _, completion in flat]
        prompts = [task.prompt for task, _ in flat]
        return self.judge(prompts, [_as_said(task.prompt, c.text) for task, c in flat], columns)

    def _total(self, parts: Mapping[str, float | None]) -> float | None:
        total = 0.0
        for component, _ in self.components:
            value = parts[component.label]
            if value is None:
                return None
            total += component.weight * value
        return total


def find_function(component: RewardComponent) -> RewardFunction:
    """A built-in, or the named function of the user's file; `RewardError` where there is none."""
    if component.model is not None:
        expect_weights(component.model)
        if not has_scalar_head(component.model):
            raise RewardError(
                "the folder holds no reward model (a sequence classifier with one label)",
                where=component.model,
                fix="train one with method: reward_model",
            )
    if component.file is not None:
        return _from_file(Path(component.file), component.function)
    if component.function not in BUILT_IN:
        raise RewardError(
            f"unknown reward {component.function!r}",
            fix=f"use one of {', '.join(BUILT_IN)}, or give `file:` with your own function",
        )
    return BUILT_IN[component.function]


def _from_file(path: Path, name: str) -> RewardFunction:
    spec = importlib.util.spec_from_file_location(f"strop_user_{path.stem}", path)
    if spec is None or spec.loader is None or not path.exists():
        raise RewardError("no such Python file", where=str(path), fix="check `file:`")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # noqa: BLE001 - the user's file may raise anything
        raise RewardError(
            f"the file cannot be imported: {_described(error)}", where=str(path)
        ) from None
    function = vars(module).get(name)
    if not callable(function):
        offered = [n for n, v in vars(module).items() if inspect.isfunction(v)]
        raise RewardError(
            f"the file has no function {name!r}",
            where=str(path),
            fix=f"it has {', '.join(offered) or 'none'}",
        )
    return function  # type: ignore[no-any-return]


def _call(
    component: RewardComponent,
    function: RewardFunction,
    prompts: Sequence[Text],
    completions: Sequence[Text],
    columns: Mapping[str, Sequence[Any]],
) -> tuple[list[float | None], Failure | None]:
    nothing: list[float | None] = [None] * len(completions)
    options = component.options | ({"model": component.model} if component.model else {})
    try:
        given = function(prompts=prompts, completions=completions, **{**columns, **options})
        values = [None if value is None else float(value) for value in given]
    except Exception as error:  # noqa: BLE001 - a reward may raise anything; it must not end a run
        return nothing, Failure(component.label, _described(error))
    if len(values) != len(completions):
        problem = f"returned {len(values)} values for {len(completions)} completions"
        return nothing, Failure(component.label, problem)
    return [v if v is not None and math.isfinite(v) else None for v in values], None


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _as_said(prompt: Text, text: str) -> Text:
    """A completion in the form of its prompt: text for text, one assistant message for chat."""
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
