"""Which tasks a step draws: those that the policy sometimes solves, and now and then the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from strop.engines.draws import DrawKey, uniforms
from strop.errors import UsageError
from strop.recipe.train.rollout import CurriculumRecipe
from strop.types import ScoredGroup

HARD, EASY = 0.2, 0.8
"""Pass rates below and above which a task is called so in the log."""


@dataclass(slots=True)
class Seen:
    """What is known of one task: `Seen(rate=0.4, visits=3, solved=0)`; `solved` counts the latest
    visits in a row in which every answer passed, and `retired` says that they were enough."""

    rate: float = 0.0
    visits: int = 0
    solved: int = 0
    retired: bool = False


class Curriculum:
    """Draws tasks in proportion to how much there is to learn from them.

        weight = floor + (1 - floor) 4 p (1 - p)

    p is a task's pass rate: what groups learn from is the variance of their rewards, p (1 - p) for
    a reward of 0 or 1 (learnability: Rutherford et al. 2024, arXiv 2408.15099). Tasks that were
    never drawn weigh 1. One that was solved whole `retire_after` times in a row is retired: it
    weighs `floor` alone, and comes back once an answer to it fails.
    """

    def __init__(self, recipe: CurriculumRecipe, tasks: int, seed: int) -> None:
        self.recipe, self.seed = recipe, seed
        self.seen = [Seen() for _ in range(tasks)]
        self._brought_back = 0

    def draw(self, count: int, step: int, round_: int) -> list[int]:
        """`count` different tasks (all of them, again and again, where there are fewer): those
        with the largest u^(1 / weight), which draws without replacement in proportion to the
        weights (Efraimidis and Spirakis 2006)."""
        weights = np.array([self.weight(one) for one in self.seen])
        drawn = uniforms(DrawKey(self.seed, "curriculum", step, round_), len(weights))
        order = np.argsort(-np.log(np.maximum(drawn, 1e-300)) / weights, kind="stable")
        return [int(order[place % len(order)]) for place in range(count)]

    def weight(self, one: Seen) -> float:
        floor = self.recipe.floor
        if one.visits == 0:
            return 1.0
        if one.retired:
            return floor
        return floor + (1 - floor) * 4 * one.rate * (1 - one.rate)

    def note(self, task: int, group: ScoredGroup) -> None:
        """What a group of answers says of its task; one without a score says nothing."""
        totals = [score.total for score in group.scores if score.total is not None]
        if not totals:
            return
        rate = sum(total >= self.recipe.passes for total in totals) / len(totals)
        one = self.seen[task]
        kept = self.recipe.memory if one.visits else 0.0
        one.rate = kept * one.rate + (1 - kept) * rate
        one.visits += 1
        one.solved = one.solved + 1 if rate == 1 else 0
        retired = one.solved >= self.recipe.retire_after
        self._brought_back += one.retired and not retired
        one.retired = retired

    def metrics(self) -> dict[str, float]:
        """How many tasks are in each band, and how many came back so far."""
        known = [one for one in self.seen if one.visits and not one.retired]
        return {
            "curriculum/unseen": sum(one.visits == 0 for one in self.seen),
            "curriculum/hard": sum(one.rate < HARD for one in known),
            "curriculum/middle": sum(HARD <= one.rate <= EASY for one in known),
            "curriculum/easy": sum(one.rate > EASY for one in known),
            "curriculum/retired": sum(one.retired for one in self.seen),
            "curriculum/brought_back": self._brought_back,
        }

    def state(self) -> dict[str, Any]:
        rows = [[one.rate, one.visits, one.solved, one.retired] for one in self.seen]
        return {"seen": rows, "brought_back": self._brought_back}

    def load(self, state: Mapping[str, Any]) -> None:
        if len(state["seen"]) != len(self.seen):
            raise UsageError(
                f"the checkpoint knows {len(state['seen'])} tasks, and there are {len(self.seen)}",
                fix="resume with the data that the run was started with",
            )
        self.seen = [Seen(*row) for row in state["seen"]]
        self._brought_back = int(state["brought_back"])
