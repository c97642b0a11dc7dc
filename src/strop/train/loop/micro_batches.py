"""A step cut into forwards that fit into memory."""

from __future__ import annotations

import itertools
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


def split_group(
    tree: Tree, paths: Sequence[int], run: RunRecipe, max_tokens: int
) -> list[tuple[Tree, int]]:
    """A group's tree cut for forwards of `max_tokens`, as `split_tree` does; where the recipe does
    not say how large they are, no part is so small that reading the trunk again would cost
    much."""
    if run.micro_batch_tokens is None:
        max_tokens = max(max_tokens, min(MOST_TOKENS, TRUNKS * len(tree.trunk)))
    return split_tree(tree, paths, max_tokens)


def split_tree(tree: Tree, paths: Sequence[int], max_tokens: int) -> list[tuple[Tree, int]]:
    """A tree over the limit as several with the same trunk, each with how many answers it holds.
    The next `paths[i]` branches are those of answer i, which stay together.

    The numbers are the same; the trunk is read more than once.
    """
    if len(tree) <= max_tokens or len(paths) < 2:
        return [(tree, len(paths))]
    room = max_tokens - len(tree.trunk)
    ends = list(itertools.accumulate(paths, initial=0))
    answers = [tree.branches[a:b] for a, b in itertools.pairwise(ends)]
    groups = runs(answers, room, lambda answer: sum(len(branch.ids) for branch in answer))
    return [
        (replace(tree, branches=tuple(b for answer in held for b in answer)), len(held))
        for held in groups
    ]
