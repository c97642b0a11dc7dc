"""A source of rollouts that process 0 of a run keeps for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from strop.distributed.world import World
from strop.engines.engine import PromptedTask
from strop.engines.publish import Publisher
from strop.rewards.compose import Reward
from strop.rollout.collect import Collected
from strop.rollout.source import RolloutSource, StepRollouts


class LedSource:
    """Process 0 samples and scores by `source`, and keeps its state; all get its groups.

    What is outstanding, how old it is and what was learnt from is known in one place, so all that
    holds for the source of one process holds here: `source` of the other processes only knows the
    prompts. All processes publish together, before process 0 asks for anything.
    """

    def __init__(self, source: RolloutSource, publisher: Publisher, world: World) -> None:
        self.source, self.publisher, self.world = source, publisher, world

    def tasks(self, position: int) -> list[PromptedTask]:
        return self.source.tasks(position)

    def next(self, step: int, position: int) -> StepRollouts:
        self.publisher.publish()
        return self.world.first(lambda: self.source.next(step, position))

    def held_out(
        self, tasks: Sequence[PromptedTask], reward: Reward, *, samples: int, temperature: float
    ) -> Collected:
        self.publisher.publish()
        return self.world.first(
            lambda: self.source.held_out(tasks, reward, samples=samples, temperature=temperature)
        )

    def state(self) -> dict[str, Any]:
        """That of process 0, which writes it."""
        return self.source.state()

    def load(self, state: Mapping[str, Any]) -> None:
        self.source.load(state)
