"""Records -> trees within the token limit, with a count of what was dropped or cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from strop.errors import DataError
from strop.text.render import (
    demonstration_tree,
    document_trees,
    feedback_tree,
    preference_tree,
)
from strop.types import Branch, Demonstration, Document, Feedback, Preference, Record, Tree

RENDERERS: dict[type[Record], Callable[[Any, Any], Tree]] = {
    Demonstration: demonstration_tree,
    Preference: preference_tree,
    Feedback: feedback_tree,
}


@dataclass(frozen=True, slots=True)
class Rendered:
    """Trees ready for training: `Rendered(trees, records, dropped=3, cut=0)`.

    `records[i]` is what `trees[i]` was made from.
    """

    trees: tuple[Tree, ...]
    records: tuple[Record, ...]
    dropped: int
    cut: int


def render(
    tokenizer: Any, records: Sequence[Record], *, max_length: int, cut_overlong: bool
) -> Rendered:
    """Trees of all records; one whose trunk and longest branch exceed `max_length` is dropped or
    its branches are cut. Raises `DataError` when nothing is left."""
    trees: list[Tree] = []
    kept: list[Record] = []
    dropped = cut = 0
    for record in records:
        if isinstance(record, Document):
            parts = document_trees(tokenizer, record, max_length=max_length)
            trees += parts
            kept += [record] * len(parts)
            continue
        tree = RENDERERS[type(record)](tokenizer, record)
        if all(len(tree.trunk) + len(b.ids) <= max_length for b in tree.branches):
            trees.append(tree)
            kept.append(record)
        elif cut_overlong and len(tree.trunk) < max_length:
            trees.append(_cut(tree, max_length - len(tree.trunk)))
            kept.append(record)
            cut += 1
        else:
            dropped += 1
    if not trees:
        raise DataError(
            f"all {dropped} records are longer than {max_length} tokens",
            fix="raise text.max_length",
        )
    return Rendered(tuple(trees), tuple(kept), dropped, cut)


def _cut(tree: Tree, room: int) -> Tree:
    cut = (Branch(b.ids[:room], b.supervised[:room]) for b in tree.branches)
    return Tree(tree.trunk, tuple(cut))
