"""One optimizer step out of micro-batches, with nothing divided twice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from strop.errors import TrainingError
from strop.losses.reduce import Loss
from strop.metrics.value import Mean, Metric, merge
from strop.model.load import Policy
from strop.train.optim import Optimizers
from strop.types import TokenScores, Tree

ItemT = TypeVar("ItemT")


@dataclass(slots=True)
class TrainState:
    """What a run carries from step to step; `step` counts finished optimizer steps."""

    policy: Policy
    optimizer: Optimizers
    step: int = 0


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


def optimizer_step(
    state: TrainState,
    work: Sequence[Piece],
    loss_of: Callable[[TokenScores, slice], Loss],
    *,
    learning_rate: float,
    max_grad_norm: float,
    temperature: float = 1.0,
) -> dict[str, Metric]:
    """Forward and backward over every piece, then one clipped update.

    `loss_of(scores, branches)` gives a piece's share of the step's loss: its denominators are
    counted over the whole step, so shares add up. Raises `TrainingError` when loss or gradient
    is not finite; the weights are then untouched.
    """
    metrics: dict[str, Metric] = {}
    value = 0.0
    for piece in work:
        with state.policy.arithmetic():
            scores = state.policy.score(piece.trees, temperature=temperature)
        loss = loss_of(scores, piece.branches)
        loss.value.backward()
        value += float(loss.value.detach())
        entropy = Mean(float(scores.entropy_N.sum()), len(scores.entropy_N))
        metrics = merge(metrics, {**loss.metrics, "entropy": entropy})
    norm = float(torch.nn.utils.clip_grad_norm_(state.policy.trainable(), max_grad_norm))
    if not math.isfinite(value) or not math.isfinite(norm):
        state.optimizer.zero_grad()
        raise TrainingError(
            f"step {state.step + 1}: the loss is {value} and the gradient norm {norm}",
            fix="lower optim.learning_rate or look at the step's data; weights were not changed",
        )
    state.optimizer.step(learning_rate)
    state.optimizer.zero_grad()
    state.step += 1
    return metrics | {
        "loss": Mean.of(value),
        "grad_norm": Mean.of(norm),
        "learning_rate": Mean.of(learning_rate),
    }
