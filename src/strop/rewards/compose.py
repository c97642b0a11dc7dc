"""Several rewards as one number per completion, with every component kept.

A completion that a component could not score (`None`, an exception, a number that is not finite,
text, a timeout) has no total, unless the recipe marks that component optional: unscored is not
zero.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from strop.episodes import Episode, asked_of
from strop.errors import DataError
from strop.recipe.train.reward import RewardComponent
from strop.rewards.combine import shaped, total_of
from strop.rewards.find import RewardFunction, find_function
from strop.rewards.own.functions import FunctionOutput, called
from strop.rewards.own.guard import GuardedFunction
from strop.text.script import before_answer
from strop.types import (
    FAILED,
    Answer,
    Answered,
    Completion,
    Failure,
    Judged,
    Rollout,
    Score,
    Task,
    Text,
)

GIVEN = ("prompts", "completions", "completion_ids", "environment_reward", "model")
"""Arguments that every reward function gets besides the tasks' own columns."""

OPTIONAL = "mark every reward that judges only some of the tasks `optional: true`"
"""The fix where rewards returned `None` without an error."""


class Reward:
    """A composition of reward functions.

    With `in_groups` (training) the components that the recipe normalises are centred and scaled
    within each group; without it (evals, where a group may be one answer) they are used as they
    are. `functions` replace those that the components name.
    """

    def __init__(
        self,
        components: Sequence[RewardComponent],
        *,
        in_groups: bool = False,
        functions: Sequence[RewardFunction] | None = None,
    ) -> None:
        found = functions or [find_function(component) for component in components]
        self.components = list(zip(components, found, strict=True))
        self.recipe = tuple(components)
        self.in_groups = in_groups
        self.seconds = dict.fromkeys((component.label for component in components), 0.0)
        """Time spent in each component so far."""

    def expect_columns(self, tasks: Sequence[Task]) -> None:
        """Raise `DataError` for the first task that lacks a column that a reward reads."""
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
        group_size: int = 1,
        *,
        unscored: Collection[int] = (),
    ) -> Judged:
        """One score per completion, `group_size` of them a group; a component that raises leaves
        its completions unscored, and so are those whose places are in `unscored`. A score's
        components are raw values; the parts of one (`rubric/names the dose`) stand beside it."""
        by_name: dict[str, list[float | None]] = {}
        failures: list[Failure] = []
        for component, function in self.components:
            started = time.perf_counter()
            given = {**columns, "prompts": prompts, "completions": completions}
            answer = _call(component, function, given)
            self.seconds[component.label] += time.perf_counter() - started
            by_name[component.label] = answer.values
            by_name |= {f"{component.label}/{name}": v for name, v in answer.parts.items()}
            failures += [Failure(component.label, f.error, f.kind, f.count) for f in answer.faults]
        raw = [
            {name: None if i in unscored else v[i] for name, v in by_name.items()}
            for i in range(len(completions))
        ]
        scores = []
        for first in range(0, len(raw), group_size):
            group = raw[first : first + group_size]
            made = shaped(self.recipe, group, normalize=self.in_groups)
            scores += [
                Score(None if i in unscored else total_of(self.recipe, parts), values)
                for i, (parts, values) in enumerate(zip(made, group, strict=True), first)
            ]
        return Judged(tuple(scores), tuple(failures))

    def judge_rollouts(self, rollouts: Sequence[Rollout | Answered]) -> Judged:
        """Scores of all completions of all rollouts, rollout by rollout. One that failed or was
        called off is unscored: what there is of it says nothing of the model."""
        flat = [(rollout.task, c) for rollout in rollouts for c in rollout.completions]
        columns = columns_of([task for task, _ in flat])
        columns["completion_ids"] = [
            list(said.ids) if isinstance(said, Completion) else [] for _, said in flat
        ]
        if any(isinstance(said, Episode) for _, said in flat):
            columns["environment_reward"] = [
                said.reward if isinstance(said, Episode) else None for _, said in flat
            ]
        prompts = [before_answer(asked_of(task, said)) for task, said in flat]
        said = [_answer_of(task, completion) for task, completion in flat]
        failed = {i for i, (_, completion) in enumerate(flat) if completion.finish in FAILED}
        size = len(rollouts[0].completions)
        return self.judge(prompts, said, columns, size, unscored=failed)


def _call(
    component: RewardComponent, function: RewardFunction, columns: Mapping[str, Sequence[Any]]
) -> FunctionOutput:
    options = component.options | ({"model": component.model} if component.model else {})
    if isinstance(function, GuardedFunction):
        return function.judge(columns, options)
    return called(function, {**columns, **options}, len(columns["completions"]))


def columns_of(tasks: Sequence[Task]) -> dict[str, list[Any]]:
    """The tasks' columns as lists; `None` where a task lacks a column that others have."""
    names = sorted({name for task in tasks for name in task.columns})
    return {name: [task.columns.get(name) for task in tasks] for name in names}


def as_said(prompt: Text, text: str) -> Text:
    """A completion in the form of its prompt: text for text, one assistant message for chat."""
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]


def _answer_of(task: Task, answer: Answer) -> Text:
    """An answer as rewards read it: of an episode all that was said after the prompt."""
    if isinstance(answer, Episode):
        return [dict(message) for message in answer.messages]
    return as_said(task.prompt, answer.said)


def shares_scored(scores: Sequence[Score]) -> str | None:
    """`"code scored 2 of 4, maths 2 of 4"` if every reward scored something, but no completion was
    scored by all of them; else `None`."""
    counts = {
        name: sum(score.components[name] is not None for score in scores)
        for name in scores[0].components
    }
    if any(score.total is not None for score in scores) or not all(counts.values()):
        return None
    return ", ".join(f"{name} scored {count} of {len(scores)}" for name, count in counts.items())
