"""Records -> trees within the token limit, with a count of what was dropped or cut."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from strop.errors import DataError, StropError
from strop.text.ends import ends_of
from strop.text.lazy import Chained
from strop.text.render import pieces, tried
from strop.text.script import PromptAndAnswers, asked_of
from strop.types import Branch, Demonstration, Document, Origin, Record, Tree

Add = Callable[[Tree, Record], None]
"""Receives the next tree and the record it was made from."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of rendering: `Tally(dropped=3, cut=0, branches=896, supervised=17920, ended=890)`.

    `dropped` records were too long, `cut` ones lost the end of an answer; `supervised` counts
    tokens, and `ended` the branches that end in a supervised token that ends an answer.
    """

    dropped: int = 0
    cut: int = 0
    branches: int = 0
    supervised: int = 0
    ended: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Rendered:
    """Trees ready for training: `Rendered(trees, records, Tally(dropped=3, ...))`.

    `trees[i]` was made from `records[i]`. Both are in memory, or are read on access from a store
    (`strop.text.store`).
    """

    trees: Sequence[Tree]
    records: Sequence[Record]
    tally: Tally

    @property
    def dropped(self) -> int:
        return self.tally.dropped

    @property
    def cut(self) -> int:
        return self.tally.cut


def joined(parts: Sequence[Rendered]) -> Rendered:
    """Several rendered sources end to end."""
    if len(parts) == 1:
        return parts[0]
    return Rendered(
        Chained([part.trees for part in parts]),
        Chained([part.records for part in parts]),
        sum((part.tally for part in parts), Tally()),
    )


@dataclass(frozen=True, slots=True)
class RenderedRecord:
    """A record within the token limit: `RenderedRecord(Tree((1, 4), ...), record, cut=False)`; a
    long document gives several, one for each piece. `cut` says whether answers were cut."""

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

    `on_bad` is called for a record that cannot be rendered, `on_long` for one whose trunk and
    longest branch exceed `max_length` and whose branches cannot be cut; if they return, the record
    is left out. Raises `TextError` if a chat template does not end in time.
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
    tokenizer: Any, records: Iterable[Record], *, max_length: int, cut_overlong: bool
) -> Rendered:
    """Trees of all records in memory; one whose trunk and longest branch exceed `max_length` is
    dropped or its branches are cut. The first that cannot be rendered raises; so does `DataError`
    when nothing is left."""

    def make(add: Add) -> Tally:
        return render_into(
            add,
            tokenizer,
            records,
            max_length=max_length,
            cut_overlong=cut_overlong,
            on_bad=_refused,
            on_long=lambda record: None,
        )

    rendered = in_memory(make)
    if not rendered.trees:
        raise all_too_long(rendered.dropped, max_length)
    return rendered


def in_memory(make: Callable[[Add], Tally]) -> Rendered:
    """What `make` adds, held in memory."""
    trees: list[Tree] = []
    records: list[Record] = []

    def add(tree: Tree, record: Record) -> None:
        trees.append(tree)
        records.append(record)

    tally = make(add)
    return Rendered(tuple(trees), tuple(records), tally)


def render_into(
    add: Add,
    tokenizer: Any,
    records: Iterable[Record],
    *,
    max_length: int,
    cut_overlong: bool,
    on_bad: Callable[[StropError, Origin], None],
    on_long: Callable[[Record], None],
) -> Tally:
    """`add` every tree of `render_stream` with its record, and make the counts for the checks
    before a run."""
    ends = frozenset(ends_of(tokenizer))
    dropped = cut = branches = supervised = ended = 0

    def drop(record: Record) -> None:
        nonlocal dropped
        dropped += 1
        on_long(record)

    for one in render_stream(
        tokenizer,
        records,
        max_length=max_length,
        cut_overlong=cut_overlong,
        on_bad=on_bad,
        on_long=drop,
    ):
        add(one.tree, one.record)
        cut += one.cut
        branches += len(one.tree.branches)
        for branch in one.tree.branches:
            supervised += sum(branch.supervised)
            ended += branch.ids[-1] in ends and branch.supervised[-1]
    return Tally(dropped, cut, branches, supervised, ended)


def _refused(error: StropError, origin: Origin) -> None:
    raise error


def all_too_long(dropped: int, max_length: int) -> DataError:
    return DataError(
        f"all {dropped} records are longer than {max_length} tokens",
        fix="raise text.max_length (the model's positions are its bound)",
    )


def _cut(tree: Tree, room: int, record: Record) -> Tree:
    """Branches cut to at most `room` tokens; a demonstration's branches without a supervised token
    left are dropped."""
    cut = [Branch(b.ids[:room], b.supervised[:room]) for b in tree.branches]
    if isinstance(record, Demonstration):
        cut = [branch for branch in cut if any(branch.supervised)]
    return Tree(tree.trunk, tuple(cut))
