"""The load-balancing loss of a mixture's routers, over all tokens of a step.

How often an expert is chosen is counted over the whole step before its first loss: with the counts
of each forward alone, the result would depend on how the step is cut into forwards and dealt to
processes (Qiu et al. 2025, arXiv 2501.11873, found it to be worse, too).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from strop.distributed.world import Counts, World
from strop.model.balance import Load, watched
from strop.model.logprobs import eval_mode
from strop.model.network import Policy
from strop.model.routing import routers
from strop.train.loop.micro_batches import passes
from strop.types import TokenScores, Tree

ROWS, EXPERT = "router/rows", "router/expert_"
"""Names of the counts."""


class Balance:
    """Adds the loss times `coefficient` to a method's own."""

    def __init__(self, policy: Policy, coefficient: float, world: World) -> None:
        self.policy, self.coefficient, self.world = policy, coefficient, world

    def counts(self, trees: Sequence[Tree], max_tokens: int) -> dict[str, float]:
        """How often this process's trees choose each expert, from forwards without gradient."""
        with torch.no_grad(), eval_mode(self.policy.model):
            loads = passes(
                self.policy, trees, max_tokens, lambda read: self.scored(read)[1], self.world
            )
        router = next(iter(routers(self.policy.score.causal_lm).values()))
        chosen = [torch.zeros(router.num_experts), *(load.chosen_E.cpu() for load in loads)]
        often = torch.stack(chosen).sum(0).tolist()
        named = {f"{EXPERT}{expert}": count for expert, count in enumerate(often)}
        return {ROWS: sum(load.rows for load in loads), **named}

    def scored(self, trees: Sequence[Tree]) -> tuple[TokenScores, Load]:
        """The scores of these trees, and what the routers did with their tokens."""
        with watched(self.policy.score.causal_lm) as watch, self.policy.arithmetic():
            scores = self.policy.score(trees)
        return scores, watch.load(sum(map(len, trees)))

    def part(self, load: Load, counts: Counts) -> torch.Tensor:
        """A forward's part of the step's loss, without the coefficient. Where nothing was counted
        the forward is the whole step."""
        if ROWS not in counts:
            return load.balance(load.chosen_E, load.rows)
        experts = range(len(load.chosen_E))
        chosen_E = torch.tensor([counts[f"{EXPERT}{expert}"] for expert in experts])
        return load.balance(chosen_E, counts[ROWS])

    def share(self, load: Load, counts: Counts) -> float:
        """A forward's share of the step: all shares are 1."""
        return load.rows / counts.get(ROWS, load.rows)
