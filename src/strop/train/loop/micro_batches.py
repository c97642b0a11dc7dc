"""A step cut into forwards that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
    held: list[Tree] = []
    tokens = first = count = 0
    for tree in trees:
        if held and tokens + len(tree) > max_tokens:
            yield MicroBatch(tuple(held), slice(first, first + count))
            first, held, tokens, count = first + count, [], 0, 0
        held.append(tree)
        tokens += len(tree)
        count += len(tree.branches)
    if held:
        yield MicroBatch(tuple(held), slice(first, first + count))


def split_tree(tree: Tree, max_tokens: int) -> list[Tree]:
    """A tree over the limit as several with the same trunk, branches in order.

    The numbers are the same; the trunk is read more than once.
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
