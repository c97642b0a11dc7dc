"""Tasks -> scored groups: sample, judge, keep what could not be judged apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from strop.engines.engine import Sampler, Sampling
from strop.errors import UnscoredError
from strop.rewards.compose import OPTIONAL, shares_scored
from strop.text.encode import Tokenizer
from strop.text.render import opening, prompts_ids
from strop.tracking.phases import phase
from strop.types import Completion, Failure, Judged, Rollout, ScoredGroup, Task


@dataclass(frozen=True, slots=True)
class PromptedTask:
    """A task with its rendered prompt: `PromptedTask(task, prompt_ids=(1, 4), opened="<think>")`.

    `opened` is what the prompt has begun of the answer.
    """

    task: Task
    prompt_ids: tuple[int, ...]
    opened: str = ""

    def answered(self, completions: Sequence[Completion]) -> Rollout:
        """The task with what was sampled after its prompt."""
        carrying = tuple(replace(one, opened=self.opened) for one in completions)
        return Rollout(self.task, self.prompt_ids, carrying)


def prompted_tasks(tokenizer: Tokenizer, tasks: Sequence[Task]) -> list[PromptedTask]:
    """Tasks with their prompts as the model reads them."""
    return [
        PromptedTask(task, ids, opening(tokenizer, task.prompt, ids))
        for task, ids in zip(tasks, prompts_ids(tokenizer, tasks), strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Collected:
    """The groups of one step and the rewards that failed while judging them."""

    groups: tuple[ScoredGroup, ...]
    failures: tuple[Failure, ...]


def collect(
    tasks: Sequence[PromptedTask],
    sampler: Sampler,
    judge: Callable[[Sequence[Rollout]], Judged],
    *,
    group_size: int,
    sampling: Sampling,
    seed: int,
    step: int,
) -> Collected:
    """`group_size` scored completions per task.

    Raises `UnscoredError` when not one completion could be judged.
    """
    with phase("sampling"):
        sampled = sampler.sample(
            [task.prompt_ids for task in tasks],
            group_size=group_size,
            sampling=sampling,
            seed=seed,
            step=step,
        )
    rollouts = [
        task.answered(completions) for task, completions in zip(tasks, sampled, strict=True)
    ]
    with phase("reward"):
        judged = judge(rollouts)
    if all(score.total is None for score in judged.scores):
        shares = shares_scored(judged.scores)
        if shares and not judged.failures:
            raise UnscoredError(
                f"none of {len(judged.scores)} completions is scored by every reward: {shares}",
                fix=OPTIONAL,
            )
        raise UnscoredError(
            f"none of {len(judged.scores)} completions could be scored: "
            f"{_reasons(judged.failures)}",
            fix="run the reward function on one completion by hand and mend it",
        )
    groups = tuple(
        ScoredGroup(rollout, judged.scores[i * group_size : (i + 1) * group_size])
        for i, rollout in enumerate(rollouts)
    )
    return Collected(groups, judged.failures)


def carries_no_gradient(group: ScoredGroup) -> bool:
    """Whether all scored completions of the group got the same reward."""
    totals = {score.total for score in group.scores if score.total is not None}
    return len(totals) < 2


def _reasons(failures: Sequence[Failure]) -> str:
    return (
        "; ".join(f"{f.component}: {f.error}" for f in failures)
        or "every reward returned None, or no finite number"
    )
