"""Records -> trees within the token limit, with a count of what was dropped or cut."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from strop.errors import DataError, StropError
from strop.text.render import pieces, tried
from strop.text.script import PromptAndAnswers, asked_of
from strop.types import Branch, Demonstration, Document, Origin, Record, Tree


@dataclass(frozen=True, slots=True)
class Rendered:
    """Trees ready for training: `Rendered(trees, records, dropped=3, cut=0)`.

    `records[i]` is what `trees[i]` was made from.
    """

    trees: tuple[Tree, ...]
    records: tuple[Record, ...]
    dropped: int
    cut: int


@dataclass(frozen=True, slots=True)
class RenderedRecord:
    """A record within the token limit: `RenderedRecord(Tree((1, 4), ...), record, cut=False)`; a
    long document gives several, one for each of its pieces. `cut` says whether answers were."""

    tree: Tree
    record: Record
    cut: bool


def render_stream(
    tokenizer: Any,
    records: Iterable[Record],
    *,
    max_length: int,
    cut_overlong: bool,
    on_bad: Callable[[StropError, Origin], None],
    on_long: Callable[[Record], None],
) -> Iterator[RenderedRecord]:
    """The trees of these records, in order, a batch of records in memory at a time.

    `on_bad` is called for a record that cannot be rendered and `on_long` for one whose trunk and
    longest branch exceed `max_length` where its branches cannot be cut; what they do not raise for
    is left out. Raises `TextError` where a chat template does not end in time.
    """
    waiting: deque[Record] = deque()

    def asked() -> Iterator[PromptAndAnswers]:
        for record in records:
            waiting.append(record)
            yield asked_of(record)

    for tree in tried(tokenizer, asked()):
        record = waiting.popleft()
        if isinstance(tree, StropError):
            on_bad(tree, record.origin)
            continue
        room = max_length - len(tree.trunk)
        if isinstance(record, Document):
            closed = (*tree.trunk, tokenizer.eos_token_id)
            for piece in pieces(closed, max_length):
                yield RenderedRecord(piece, record, cut=False)
        elif all(len(branch.ids) <= room for branch in tree.branches):
            yield RenderedRecord(tree, record, cut=False)
        elif cut_overlong and room > 0 and (shorter := _cut(tree, room, record)).branches:
            yield RenderedRecord(shorter, record, cut=True)
        else:
            on_long(record)


def render(
    tokenizer: Any, records: Sequence[Record], *, max_length: int, cut_overlong: bool
) -> Rendered:
    """Trees of all records; one whose trunk and longest branch exceed `max_length` is dropped or
    its branches are cut. The first that cannot be rendered raises; so does `DataError` when nothing
    is left."""
    long: list[Record] = []
    kept = list(
        render_stream(
            tokenizer,
            records,
            max_length=max_length,
            cut_overlong=cut_overlong,
            on_bad=_refused,
            on_long=long.append,
        )
    )
    if not kept:
        raise all_too_long(len(long), max_length)
    return Rendered(
        tuple(one.tree for one in kept),
        tuple(one.record for one in kept),
        len(long),
        sum(one.cut for one in kept),
    )


def all_too_long(dropped: int, max_length: int) -> DataError:
    return DataError(
        f"all {dropped} records are longer than {max_length} tokens",
        fix="raise text.max_length (the model's positions are its bound)",
    )


def _refused(error: StropError, origin: Origin) -> None:
    raise error


def _cut(tree: Tree, room: int, record: Record) -> Tree:
    """Branches of at most `room` tokens; those of a demonstration that then learn nothing go."""
    cut = [Branch(b.ids[:room], b.supervised[:room]) for b in tree.branches]
    if isinstance(record, Demonstration):
        cut = [branch for branch in cut if any(branch.supervised)]
    return Tree(tree.trunk, tuple(cut))
