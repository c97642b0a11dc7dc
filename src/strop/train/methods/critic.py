"""PPO's critic: the value of every token, and the critic's loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from strop.distributed.world import World
from strop.losses.policy import value_loss
from strop.losses.reduce import Loss, mean_of
from strop.model.logprobs import eval_mode
from strop.tracking.phases import phase
from strop.train.loop.micro_batches import MicroBatch, passes
from strop.train.loop.state import Critic
from strop.train.loop.updater import MicroBatchLoss
from strop.types import Tree


@torch.no_grad()
def token_values(
    critic: Critic, trees: Sequence[Tree], max_tokens: int, world: World
) -> torch.Tensor:
    """The critic's value before every token of every branch, in order, [N], dropout off."""
    network = critic.network
    with phase("forward"), eval_mode(network.model), network.arithmetic():
        values = passes(network, trees, max_tokens, network.score.values, world)
    return torch.cat([torch.zeros(0), *(value_N.cpu() for value_N in values)])


def value_loss_of(
    critic: Critic,
    batch: MicroBatch,
    old_N: torch.Tensor,
    return_N: torch.Tensor,
    *,
    clip: float,
    tokens: float,
) -> MicroBatchLoss:
    """The clipped squared error of one forward, a mean over the update's `tokens`."""

    def loss() -> Loss:
        with critic.network.arithmetic():
            value_N = critic.network.score.values(batch.trees)
        old, wanted = old_N.to(value_N.device), return_N.to(value_N.device)
        loss_N = value_loss(value_N, old, wanted, clip=clip)
        error_N = (value_N.detach() - wanted).square()
        return Loss(
            loss_N.sum() / tokens,
            {
                "value/mean": mean_of(value_N),
                "value/error": mean_of(error_N),
            },
        )

    return loss
