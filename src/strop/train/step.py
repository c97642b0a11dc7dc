"""One optimizer step out of micro-batches, with nothing divided twice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from strop.errors import TrainingError
from strop.losses.reduce import Loss
from strop.metrics.phases import phase
from strop.metrics.value import Mean, Metric, merge
from strop.model.network import Network, ScalarNetwork
from strop.model.reference import Reference
from strop.train.optim import Optimizers
from strop.types import Tree

Share = Callable[[], Loss]
"""One forward that returns its part of the step's loss: the parts add up to the whole."""


@dataclass(frozen=True, slots=True)
class Critic:
    """PPO's value network with its own optimizer; its rate is the policy's times `rate_scale`."""

    network: ScalarNetwork
    optimizer: Optimizers
    rate_scale: float


@dataclass(slots=True)
class TrainState:
    """What a run carries from step to step, and what its checkpoints hold.

    `step` counts finished steps; `running` are statistics a method keeps by name (BCO's mean
    reward); `reference` is there when it moves with the run.
    """

    network: Network
    optimizer: Optimizers
    step: int = 0
    running: dict[str, float] = field(default_factory=dict)
    reference: Reference | None = None
    critic: Critic | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """One forward: some of a step's trees and where their branches stand in the step.

    `branches` is the slice of the step's branches (in order) that these trees hold.
    """

    trees: tuple[Tree, ...]
    branches: slice


def pieces(trees: Sequence[Tree], max_tokens: int) -> Iterator[Piece]:
    """Cut a step into forwards of at most `max_tokens` tokens (one tree at least)."""
    held: list[Tree] = []
    tokens = first = count = 0
    for tree in trees:
        if held and tokens + len(tree) > max_tokens:
            yield Piece(tuple(held), slice(first, first + count))
            first, held, tokens, count = first + count, [], 0, 0
        held.append(tree)
        tokens += len(tree)
        count += len(tree.branches)
    if held:
        yield Piece(tuple(held), slice(first, first + count))


def split_tree(tree: Tree, max_tokens: int) -> list[Tree]:
    """A tree over the limit as several with the same trunk, branches in order.

    The same numbers at the price of reading the trunk more than once.
    """
    if len(tree) <= max_tokens or len(tree.branches) < 2:
        return [tree]
    room = max_tokens - len(tree.trunk)
    groups: list[list[int]] = [[]]
    used = 0
    for number, branch in enumerate(tree.branches):
        if groups[-1] and used + len(branch.ids) > room:
            groups.append([])
            used = 0
        groups[-1].append(number)
        used += len(branch.ids)
    return [Tree(tree.trunk, tuple(tree.branches[i] for i in group)) for group in groups]


def scaled(shares: Sequence[Share], weight: float) -> list[Share]:
    """The same shares, their loss times `weight`."""

    def times(share: Share) -> Share:
        def weighted() -> Loss:
            loss = share()
            return Loss(weight * loss.value, loss.metrics)

        return weighted

    return [times(share) for share in shares]


def optimizer_step(
    network: Network,
    optimizer: Optimizers,
    shares: Sequence[Share],
    *,
    learning_rate: float,
    max_grad_norm: float,
    where: str,
) -> dict[str, Metric]:
    """Forward and backward of every share, then one clipped update.

    Raises `TrainingError` naming `where` when loss or gradient is not finite; this update is then
    not made.
    """
    metrics: dict[str, Metric] = {}
    value = 0.0
    for share in shares:
        with phase("forward"):
            loss = share()
        with phase("backward"):
            loss.value.backward()
        value += float(loss.value.detach())
        metrics = merge(metrics, loss.metrics)
    with phase("optimizer"):
        norm = float(torch.nn.utils.clip_grad_norm_(network.trainable(), max_grad_norm))
        if not math.isfinite(value) or not math.isfinite(norm):
            optimizer.zero_grad()
            raise TrainingError(
                f"{where}: the loss is {value} and the gradient norm {norm}",
                fix="lower optim.learning_rate or look at the step's data; this update was not "
                "made",
            )
        optimizer.step(learning_rate)
        optimizer.zero_grad()
    return metrics | {
        "loss": Mean.of(value),
        "grad_norm": Mean.of(norm),
        "learning_rate": Mean.of(learning_rate),
    }
