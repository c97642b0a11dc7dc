"""What a teacher adds to a policy gradient: advantages of sampled tokens, and an exact part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from strop.losses import distillation
from strop.model.logprobs import Head
from strop.recipe.train.distillation import (
    MinillmObjective,
    OnPolicyDistilObjective,
    TaughtRecipe,
)
from strop.recipe.train.policy import OnlineObjective
from strop.train.loop.micro_batches import micro_batches
from strop.train.teachers.build import Teaching
from strop.types import Record, Tree

Advantage = Callable[[torch.Tensor, torch.Tensor, Sequence[int]], torch.Tensor]
"""(student's log-probs [N], teacher's [N], tokens of each answer) -> [N]."""


@dataclass(frozen=True, slots=True)
class Taught:
    """The teacher of a run that learns from its own answers.

    `weight` multiplies the advantages beside a reward's; `exact` says that the loss also holds the
    reverse KL of whole distributions at every token (MiniLLM's single-step part). Both models are
    read at the `temperature` of the samples.
    """

    teaching: Teaching
    advantage: Advantage
    weight: float
    exact: bool
    temperature: float

    def trees(self, trees: Sequence[Tree], asked: Sequence[Record]) -> tuple[Tree, ...]:
        """These trees as the teacher reads them, without the routes that the student's took."""
        read = self.teaching.trees(trees, asked)
        return tuple(_unrouted(tree) for tree in read)

    def logprobs(self, trees: Sequence[Tree], max_tokens: int) -> torch.Tensor:
        """The teacher's log-probs of all supervised tokens, on the CPU, [N]."""
        asked = self.teaching.asked()
        read = [
            asked.logprobs(cut.trees, self.temperature).cpu()
            for cut in micro_batches(trees, max_tokens)
        ]
        return torch.cat([torch.zeros(0), *read])

    def head(self, trees: Sequence[Tree], head: Head) -> Head:
        """The head that also compares whole distributions, where the loss has an exact part."""
        if not self.exact:
            return head
        rows = self.teaching.whole().rows(trees)
        return replace(head, against=rows.against(distillation.reverse_kl, self.temperature))


def taught_of(recipe: TaughtRecipe, teaching: Teaching) -> Taught:
    """How the recipe's method learns from its teacher."""
    advantage, weight = _ADVANTAGES[recipe.method](recipe.objective)
    exact = recipe.method == "minillm"
    return Taught(teaching, advantage, weight, exact, recipe.rollout.temperature)


def _on_policy(objective: OnlineObjective) -> tuple[Advantage, float]:
    assert isinstance(objective, OnPolicyDistilObjective)
    advantage = partial(distillation.on_policy_distil, discount=objective.discount)
    return advantage, objective.teacher_weight


def _minillm(objective: OnlineObjective) -> tuple[Advantage, float]:
    assert isinstance(objective, MinillmObjective)
    normalized = objective.length_normalized
    return partial(distillation.minillm, length_normalized=normalized), 1.0


_ADVANTAGES: dict[str, Callable[[OnlineObjective], tuple[Advantage, float]]] = {
    "on_policy_distil": _on_policy,
    "minillm": _minillm,
}


def _unrouted(tree: Tree) -> Tree:
    """A tree whose tokens go where its reader sends them."""
    if tree.routes is None and all(branch.routes is None for branch in tree.branches):
        return tree
    branches = tuple(replace(branch, routes=None) for branch in tree.branches)
    return replace(tree, routes=None, branches=branches)
