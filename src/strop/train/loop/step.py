"""One optimizer step out of micro-batches, with nothing divided twice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from strop.errors import NotFiniteError
from strop.losses.metrics import Mean, Metric, merge
from strop.losses.reduce import Loss
from strop.model.network import Network, ScalarNetwork
from strop.model.reference import Reference
from strop.tracking.phases import phase
from strop.train.loop.optim import Optimizers
from strop.types import Tree

Share = Callable[[], Loss]
"""One forward that returns its part of the step's loss: the parts add up to the whole."""


SHIFT = "nonfinite/shift"
"""Name in `TrainState.running` of how many steps' records were left out."""

LOWER = (
    "look at the step's data, lower optim.learning_rate or optim.max_grad_norm, or raise "
    "objective.beta where the method has it"
)

SHOWN = 5
"""Tensors that a message names."""


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

    def place(self, total: int) -> int:
        """Which step's records come next, of `total`: those of `step`, or as many further on as a
        return to an earlier checkpoint left out; after the last come the first."""
        return (self.step + int(self.running.get(SHIFT, 0))) % total

    def updates(self) -> tuple[int, int]:
        """How often this process updated the policy, and how often its critic."""
        return self.optimizer.updates, 0 if self.critic is None else self.critic.optimizer.updates


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
    whose: str = "",
) -> dict[str, Metric]:
    """Forward and backward of every share, then one clipped update.

    Raises `NotFiniteError` naming `where` (and before each tensor `whose` it is) when loss or
    gradient is not finite; weights and optimizer are then as they were.
    """
    metrics: dict[str, Metric] = {}
    values: list[float] = []
    for share in shares:
        with phase("forward"):
            loss = share()
        with phase("backward"):
            loss.value.backward()
        values.append(float(loss.value.detach()))
        metrics = merge(metrics, loss.metrics)
    with phase("optimizer"):
        trained = network.trainable()
        norm = get_total_norm([p.grad for p in trained if p.grad is not None])
        if not all(map(math.isfinite, (*values, float(norm)))):
            tensors = [f"{whose}{tensor}" for tensor in _not_finite(network, values)]
            optimizer.zero_grad()
            raise NotFiniteError(where, tensors, fix=LOWER)
        clip_grads_with_norm_(trained, max_grad_norm, norm)
        optimizer.step(learning_rate)
        optimizer.zero_grad()
    return metrics | {
        "loss": Mean.of(sum(values)),
        "grad_norm": Mean.of(float(norm)),
        "learning_rate": Mean.of(learning_rate),
    }


def _not_finite(network: Network, values: Sequence[float]) -> list[str]:
    """What is not finite: weights and losses, or else gradients (of such a loss they all are)."""
    count = len(values)
    named = [(n, p) for n, p in network.model.named_parameters() if p.requires_grad]
    weights = [f"weights {name}" for name, p in named if not p.detach().isfinite().all()]
    losses = [
        f"loss of forward {number} of {count}: {value}"
        for number, value in enumerate(values, 1)
        if not math.isfinite(value)
    ]
    gradients = [
        f"gradient of {name}"
        for name, p in named
        if p.grad is not None and not p.grad.isfinite().all()
    ]
    found = weights + losses or gradients or ["the norm of all gradients together"]
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return found[:SHOWN] + more
