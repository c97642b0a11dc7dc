"""The load-balancing loss of a mixture's routers, over all tokens that a step learns from.

How often an expert is chosen is counted over the whole step before its first loss: with the counts
of each forward alone, the result would depend on how the step is cut into forwards and dealt to
processes (Qiu et al. 2025, arXiv 2501.11873, found it to be worse, too).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch

from strop.distributed.world import Counts, World
from strop.losses.metrics import Mean
from strop.losses.reduce import Loss
from strop.model.balance import Load, watched
from strop.model.logprobs import eval_mode
from strop.model.network import Policy
from strop.model.routing import routers
from strop.train.loop.micro_batches import each_read
from strop.train.loop.offline import OfflineMethod
from strop.train.loop.online import Learner
from strop.train.loop.updater import MicroBatchLoss, Update
from strop.types import ScoredGroup, Tree

ROWS, EXPERT = "router/rows", "router/expert_"
"""Names of the counts."""


class Balance:
    """Adds the loss times `coefficient` to that of a policy's update, whatever its method."""

    def __init__(self, policy: Policy, coefficient: float, world: World) -> None:
        self.policy, self.coefficient, self.world = policy, coefficient, world

    def beside(self, update: Update) -> Update:
        """The update with both losses, of the tokens that its forwards read."""
        forwards, counted = update.forwards, update.counts
        if len(forwards) > 1 or self.world.data_size > 1:
            counted = {**counted, **self.counts(forwards)}

        def losses(counts: Counts) -> list[MicroBatchLoss]:
            own = zip(update.losses(counts), forwards, strict=True)
            return [partial(self._both, loss_of, trees, counts) for loss_of, trees in own]

        return replace(update, counts=counted, losses=losses)

    def counts(self, forwards: Sequence[Sequence[Tree]]) -> dict[str, float]:
        """How often this process's trees choose each expert, from forwards without gradient."""
        with torch.no_grad(), eval_mode(self.policy.model):
            loads = each_read(self.policy, forwards, self._load, self.world)
        router = next(iter(routers(self.policy.score.causal_lm).values()))
        chosen = [torch.zeros(router.num_experts), *(load.chosen_E.cpu() for load in loads)]
        often = torch.stack(chosen).sum(0).tolist()
        named = {f"{EXPERT}{expert}": count for expert, count in enumerate(often)}
        return {ROWS: sum(load.rows for load in loads), **named}

    def _load(self, trees: Sequence[Tree]) -> Load:
        with watched(self.policy.score.causal_lm) as watch, self.policy.arithmetic():
            self.policy.score(trees)
        return watch.load(sum(map(len, trees)))

    def _both(self, loss_of: MicroBatchLoss, trees: Sequence[Tree], counts: Counts) -> Loss:
        """The method's loss of one forward, and the routers' of the same forward."""
        with watched(self.policy.score.causal_lm) as watch:
            loss = loss_of()
        load = watch.load(sum(map(len, trees)))
        part, share = part_of(load, counts), load.rows / counts.get(ROWS, load.rows)
        metrics = {**loss.metrics, "aux_loss": Mean(part.detach().double(), share)}
        return Loss(loss.value + self.coefficient * part, metrics)


def part_of(load: Load, counts: Counts) -> torch.Tensor:
    """A forward's part of the step's loss, without the coefficient. Where nothing was counted the
    forward is the whole step."""
    if ROWS not in counts:
        return load.balance(load.chosen_E, load.rows)
    experts = range(len(load.chosen_E))
    chosen_E = torch.tensor([counts[f"{EXPERT}{expert}"] for expert in experts])
    return load.balance(chosen_E, counts[ROWS])


class BalancedRecords:
    """A method that learns from records, with balance."""

    def __init__(self, method: OfflineMethod, balance: Balance) -> None:
        self.method, self.balance = method, balance

    @property
    def trees(self) -> Sequence[Tree]:
        return self.method.trees

    def update(self, indices: Sequence[int]) -> Update:
        return self.balance.beside(self.method.update(indices))

    def finish(self, row: dict[str, float], *, learnt: bool) -> dict[str, float]:
        return self.method.finish(row, learnt=learnt)


class BalancedLearner:
    """A learner from rollouts, with balance; a critic keeps its own loss."""

    def __init__(self, learner: Learner, balance: Balance) -> None:
        self.learner, self.balance = learner, balance
        self.compares_groups = learner.compares_groups

    def updates(self, parts: Sequence[Sequence[ScoredGroup]]) -> Iterator[Update]:
        for update in self.learner.updates(parts):
            yield self.balance.beside(update) if update.of == "policy" else update
