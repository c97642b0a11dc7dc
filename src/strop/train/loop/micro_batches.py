"""A step cut into forwards that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from strop.distributed.world import World
from strop.losses.reduce import Loss
from strop.model.activations import MOST_TOKENS, tokens_at_once
from strop.model.network import Network, Policy, ScalarNetwork
from strop.model.sharding import IDLE, read
from strop.recipe.train.run import RunRecipe
from strop.text.runs import runs
from strop.types import Tree

T = TypeVar("T")

TRUNKS = 8
"""A part of a group is at least so many times as long as the trunk, if forwards may be so large."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Trees of one forward: `MicroBatch((tree,), slice(4, 6))`.

    `branches` is the slice of the step's branches (in order) that these trees hold.
    """

    trees: tuple[Tree, ...]
    branches: slice


def micro_batches(trees: Sequence[Tree], max_tokens: int) -> Iterator[MicroBatch]:
    """Cut a step into forwards of at most `max_tokens` tokens (one tree at least)."""
    first = 0
    for held in runs(trees, max_tokens):
        last = first + sum(len(tree.branches) for tree in held)
        yield MicroBatch(tuple(held), slice(first, last))
        first = last


def passes(
    network: Policy | ScalarNetwork,
    trees: Sequence[Tree],
    max_tokens: int,
    read_one: Callable[[Sequence[Tree]], T],
    world: World,
) -> list[T]:
    """`read_one` of every forward over these trees, in order.

    Processes that hold parts of the weights gather them together in each forward, so all of them
    make as many: one with fewer reads an idle tree.
    """
    return each_read(
        network, [cut.trees for cut in micro_batches(trees, max_tokens)], read_one, world
    )


def each_read(
    network: Policy | ScalarNetwork,
    forwards: Sequence[Sequence[Tree]],
    read_one: Callable[[Sequence[Tree]], T],
    world: World,
) -> list[T]:
    """`passes` over trees that are cut into forwards already."""
    idle = idle_forwards(network, len(forwards), world)
    found = [read_one(trees) for trees in forwards]
    for _ in range(idle):
        read_one((IDLE,))
    return found


def idle_loss(network: Network) -> Loss:
    """A loss of 0 that took a forward through all weights."""
    with network.arithmetic():
        return Loss(0 * read(network, IDLE).sum(), {})


def idle_forwards(network: Network, own: int, world: World) -> int:
    """How many forwards this process makes for the others' sake, beside `own` ones. It is asked
    before the first of them, which already waits for the others'."""
    return max(world.exchanged(own)) - own if network.is_sharded else 0


def forward_tokens(run: RunRecipe, network: Policy | ScalarNetwork) -> int:
    """Tokens of one forward: what the recipe says, else what fits beside weights and optimizer."""
    return run.micro_batch_tokens or tokens_at_once(network)


def split_group(tree: Tree, run: RunRecipe, max_tokens: int) -> list[Tree]:
    """A group's tree cut for forwards of `max_tokens`; where the recipe does not say how large they
    are, no part is so small that reading the trunk again would cost much."""
    if run.micro_batch_tokens is None:
        max_tokens = max(max_tokens, min(MOST_TOKENS, TRUNKS * len(tree.trunk)))
    return split_tree(tree, max_tokens)


def split_tree(tree: Tree, max_tokens: int) -> list[Tree]:
    """A tree over the limit as several with the same trunk, branches in order.

    The numbers are the same; the trunk is read more than once.
    """
    if len(tree) <= max_tokens or len(tree.branches) < 2:
        return [tree]
    room = max_tokens - len(tree.trunk)
    groups = runs(tree.branches, room, lambda branch: len(branch.ids))
    return [replace(tree, branches=tuple(branches)) for branches in groups]
