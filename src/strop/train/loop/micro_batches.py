"""A step cut into forwards that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from strop.text.runs import runs
from strop.types import Tree


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


def split_tree(tree: Tree, max_tokens: int) -> list[Tree]:
    """A tree over the limit as several with the same trunk, branches in order.

    The numbers are the same; the trunk is read more than once.
    """
    if len(tree) <= max_tokens or len(tree.branches) < 2:
        return [tree]
    room = max_tokens - len(tree.trunk)
    groups = runs(tree.branches, room, lambda branch: len(branch.ids))
    return [Tree(tree.trunk, tuple(branches)) for branches in groups]
