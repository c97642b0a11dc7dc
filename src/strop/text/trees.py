"""Records -> trees within the token limit, with a count of what was dropped or cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from strop.errors import DataError
from strop.text.render import pieces, trees
from strop.text.script import asked_of
from strop.types import Branch, Demonstration, Document, Record, Tree


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
    kept: list[tuple[Tree, Record]] = []
    dropped = cut = 0
    for record, tree in zip(records, trees(tokenizer, list(map(asked_of, records))), strict=True):
        room = max_length - len(tree.trunk)
        if isinstance(record, Document):
            closed = (*tree.trunk, tokenizer.eos_token_id)
            kept += [(piece, record) for piece in pieces(closed, max_length)]
        elif all(len(branch.ids) <= room for branch in tree.branches):
            kept.append((tree, record))
        elif cut_overlong and room > 0 and (shorter := _cut(tree, room, record)).branches:
            kept.append((shorter, record))
            cut += 1
        else:
            dropped += 1
    if not kept:
        raise DataError(
            f"all {dropped} records are longer than {max_length} tokens",
            fix="raise text.max_length (the model's positions are its bound)",
        )
    return Rendered(tuple(t for t, _ in kept), tuple(r for _, r in kept), dropped, cut)


def _cut(tree: Tree, room: int, record: Record) -> Tree:
    """Branches of at most `room` tokens; those of a demonstration that then learn nothing go."""
    cut = [Branch(b.ids[:room], b.supervised[:room]) for b in tree.branches]
    if isinstance(record, Demonstration):
        cut = [branch for branch in cut if any(branch.supervised)]
    return Tree(tree.trunk, tuple(cut))
