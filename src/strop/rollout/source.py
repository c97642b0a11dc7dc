"""Sources of rollouts: they sample and score the groups that a step trains on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from strop.data.order import DataMixture, permutation
from strop.distributed.world import ALONE, World
from strop.engines.draws import DrawKey
from strop.engines.engine import PromptedTask, RolloutEngine, Sampling, sampling_of
from strop.errors import UsageError
from strop.recipe.train.methods import Online
from strop.rewards.compose import Reward
from strop.rollout.collect import Collected, carries_no_gradient, collect
from strop.rollout.curriculum import Curriculum
from strop.rollout.environment import Kept, Results
from strop.rollout.overlong import with_overlong_penalty
from strop.types import Failure, Judged, Rollout, ScoredGroup

ORDER_STREAM = 10**6
"""Stream that orders the groups of a step after dynamic sampling."""


KNOWN = {"curriculum": "how often tasks were solved", "league": "how games went"}
"""What each part of the state says."""


@dataclass(frozen=True, slots=True)
class StepRollouts:
    """The groups to train on, all groups that were sampled for them, the rewards that failed, and
    what the source says of itself."""

    groups: tuple[ScoredGroup, ...]
    sampled: tuple[ScoredGroup, ...]
    rounds: float
    failures: tuple[Failure, ...]
    metrics: Mapping[str, float] = field(default_factory=dict)


class RolloutSource(Protocol):
    """Gives a step its scored groups; its state is saved with the checkpoint."""

    def tasks(self, position: int) -> list[PromptedTask]:
        """The tasks at a position of the data order, which `next` samples first."""

    def next(self, step: int, position: int) -> StepRollouts:
        """The groups of step `step` (from 0), for the tasks at `position` of the data order."""

    def held_out(
        self, tasks: Sequence[PromptedTask], reward: Reward, *, samples: int, temperature: float
    ) -> Collected:
        """The current policy's answers to held-out tasks, with the same draws every time."""

    def state(self) -> dict[str, Any]:
        """The state to save, so that another source that loads it goes on where this one was."""

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""


class SynchronousSource:
    """Samples a step's rollouts when `next` is called, with the current weights.

    `publish` gives the engine the trainer's weights; it is called before every step. `rest` lets
    the engine give its memory back, once a step's rollouts are there. With
    `rollout.resample`, groups of further prompts replace groups whose rewards are all equal or
    whose answers are all masked (dynamic sampling: DAPO, arXiv 2503.14476, section 3.2); after the
    last round, equal groups fill the step.
    """

    def __init__(
        self,
        recipe: Online,
        prompts: Sequence[PromptedTask],
        mixture: DataMixture,
        engine: RolloutEngine,
        reward: Reward,
        *,
        publish: Callable[[], int],
        rest: Callable[[], None] = lambda: None,
        world: World = ALONE,
        results: Results | None = None,
    ) -> None:
        self.recipe, self.prompts, self.mixture = recipe, prompts, mixture
        self.engine, self.reward = engine, reward
        self.publish, self.rest, self.world = publish, rest, world
        wanted = recipe.rollout.curriculum
        self.curriculum = None if wanted is None else Curriculum(wanted, len(prompts), recipe.seed)
        self.results = results
        both: dict[str, Kept | None] = {"curriculum": self.curriculum, "league": results}
        self._kept = {name: one for name, one in both.items() if one is not None}

    def tasks(self, position: int) -> list[PromptedTask]:
        return [self.prompts[i] for i in self._drawn(position, 0)]

    def next(self, step: int, position: int) -> StepRollouts:
        """Further prompts depend only on (seed, position, round), so a resumed run draws the same
        ones."""
        self.publish()
        gathered = self._gathered(step, position)
        self.rest()
        return gathered

    def _gathered(self, step: int, position: int) -> StepRollouts:
        useful: list[ScoredGroup] = []
        equal: list[ScoredGroup] = []
        failures: list[Failure] = []
        rounds = 0
        wanted = len(self.tasks(position))
        for number in range(self.recipe.rollout.resample + 1):
            drawn = self._drawn(position, number)
            collected = self._collect([self.prompts[i] for i in drawn], step, number)
            if self.curriculum is not None:
                for task, group in zip(drawn, collected.groups, strict=True):
                    self.curriculum.note(task, group)
            if self.results is not None:
                self.results.note(collected.groups)
            rounds += 1
            failures += collected.failures
            for group in collected.groups:
                (useful if teaches(self.recipe, group) else equal).append(group)
            if len(useful) >= wanted:
                break
        known = {k: v for one in self._kept.values() for k, v in one.metrics().items()}
        if self.recipe.rollout.resample == 0:
            return StepRollouts(collected.groups, collected.groups, 1, collected.failures, known)
        learnt = filled(useful, equal, wanted, seed=self.recipe.seed, step=step)
        return StepRollouts(learnt, tuple(useful + equal), rounds, tuple(failures), known)

    def held_out(
        self, tasks: Sequence[PromptedTask], reward: Reward, *, samples: int, temperature: float
    ) -> Collected:
        self.publish()
        return answers_to(
            self.recipe, tasks, self.engine, reward.judge_rollouts,
            samples=samples, temperature=temperature, world=self.world,
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        """What the curriculum and the league know; without them it is empty, because the next
        rollouts follow from step and position alone."""
        return {name: one.state() for name, one in self._kept.items()}

    def load(self, state: Mapping[str, Any]) -> None:
        if self._kept and state.keys() == self._kept.keys():
            for name, one in self._kept.items():
                one.load(state[name])
        elif self._kept:
            raise UsageError(
                f"the checkpoint does not say {' and '.join(KNOWN[name] for name in self._kept)}",
                fix="resume with the recipe that the run was started with",
            )
        elif state:
            raise UsageError(
                f"the checkpoint holds rollouts that were under way ({', '.join(state)}), and this "
                "run samples them anew",
                fix="resume with the recipe that the run was started with",
            )

    def _drawn(self, position: int, number: int) -> Sequence[int]:
        """The tasks of a round, by their places among the prompts. A step's later rounds may draw a
        task of an earlier one again where the curriculum says so."""
        if self.curriculum is None:
            return self.mixture.draw(position, number).own
        return self.curriculum.draw(self.mixture.own, position, number)

    def _collect(self, tasks: Sequence[PromptedTask], step: int, number: int) -> Collected:
        rollout = self.recipe.rollout
        collected = collect(
            tasks,
            self.engine,
            self.reward.judge_rollouts,
            group_size=rollout.group_size,
            sampling=training_sampling(self.recipe),
            key=DrawKey(self.recipe.seed, "training", step, number),
            world=self.world,
        )
        warn_of(collected.failures)
        groups = tuple(shaped(self.recipe, group) for group in collected.groups)
        return Collected(groups, collected.failures)


def training_sampling(recipe: Online) -> Sampling:
    """How the answers that are learnt from are drawn."""
    return replace(sampling_of(recipe.rollout), routes=recipe.rollout.routing_replay)


def answers_to(
    recipe: Online,
    tasks: Sequence[PromptedTask],
    engine: RolloutEngine,
    judge: Callable[[Sequence[Rollout]], Judged],
    *,
    samples: int,
    temperature: float,
    world: World = ALONE,
) -> Collected:
    """Answers to held-out tasks, with the same draws every time."""
    return collect(
        tasks,
        engine,
        judge,
        group_size=samples,
        sampling=replace(sampling_of(recipe.rollout), temperature=temperature),
        key=DrawKey(recipe.seed, "held_out"),
        world=world,
    )


def filled(
    useful: Sequence[ScoredGroup],
    equal: Sequence[ScoredGroup],
    wanted: int,
    *,
    seed: int,
    step: int,
) -> tuple[ScoredGroup, ...]:
    """The groups of a step after dynamic sampling: the useful ones, then equal ones, spread so that
    mini-batches hold as many useful ones each."""
    kept = [*useful, *equal][:wanted]
    return tuple(kept[i] for i in permutation(len(kept), seed, step, ORDER_STREAM))


def shaped(recipe: Online, group: ScoredGroup) -> ScoredGroup:
    """The group with the penalty for overlong answers, where the recipe has one."""
    rollout = recipe.rollout
    if rollout.overlong_buffer == 0:
        return group
    return with_overlong_penalty(group, rollout.max_tokens, rollout.overlong_buffer)


def warn_of(failures: Sequence[Failure]) -> None:
    """Warn of the rewards that failed."""
    for failure in failures:
        warnings.warn(
            f"reward {failure.component} left {failure.count} completions unscored "
            f"({failure.kind}: {failure.error})",
            stacklevel=4,
        )


def teaches(recipe: Online, group: ScoredGroup) -> bool:
    """Whether the group's rewards differ and one of its answers is not masked."""
    masks = recipe.rollout.mask_truncated
    whole = any(not masks or c.finish != "length" for c in group.rollout.completions)
    return whole and not carries_no_gradient(group)
