"""Trees and records in files, for data that outgrows memory.

A store is a folder. Its files are written once, from first to last, and mapped into memory to be
read:

    tokens.bin       of every token its id times 2, plus 1 if it is supervised
    stretches.bin    where each trunk and each branch ends among the tokens, after a 0
    trees.bin        where each tree ends among the stretches, after a 0
    origins.bin      which record each tree was made from
    records.jsonl    the records
    lines.bin        where each record's line ends, after a 0
    notes.jsonl      what else its writer noted, a line each
    store.json       the writer's counts, and each file's size and CRC-32

`store.json` is written last. Without it, or if a file differs from it, the store is invalid.
"""

from __future__ import annotations

import json
import mmap
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from strop.errors import TextError
from strop.files import write_json
from strop.text.lazy import LazySequence
from strop.types import (
    Branch,
    Demonstration,
    Document,
    Feedback,
    Origin,
    Preference,
    Record,
    Task,
    Tree,
)

VERSION = 2
"""Goes up with every change of these files, or of how a record becomes a tree."""

CARD = "store.json"
PLACES = "<i8"
"""Positions have eight bytes, because a store may hold more than 2^32 tokens."""

MAPPED = 64 << 20
"""Most bytes of a file that stay mapped. Mapped pages count as memory of the process until they are
unmapped, although the system could reclaim them at any time."""
AROUND = 64 << 10
"""Bytes that the system maps around every read."""
AT_ONCE = 1 << 20
"""Numbers that are buffered before a write, and bytes per read."""

KINDS: Mapping[str, type[Record]] = {
    kind.__name__: kind for kind in (Document, Demonstration, Preference, Feedback, Task)
}


@dataclass(frozen=True, slots=True)
class Store:
    """The content of a store. `counts` are the writer's: `{"dropped": 3}`; `notes` are its further
    notes, read from the file one by one; `size` is in bytes. `trees[i]` was made from `records[i]`.
    """

    trees: StoredTrees
    records: StoredRecords
    counts: Mapping[str, Any]
    notes: Notes
    size: int


def open_store(folder: Path) -> Store | None:
    """The store in a folder; `None` if it is missing, incomplete, damaged or of another version.
    Reads all bytes once to check them."""
    try:
        card = json.loads((folder / CARD).read_text())
        if card["version"] != VERSION:
            return None
        for name, written in card["files"].items():
            if _checked(folder / name) != (written["size"], written["crc32"]):
                return None
        trees = StoredTrees(folder, card["ids"])
        size = sum(written["size"] for written in card["files"].values())
        return Store(trees, StoredRecords(folder), card["counts"], Notes(folder), size)
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _checked(path: Path) -> tuple[int, int]:
    """Size and CRC-32 of a file."""
    size = crc = 0
    with path.open("rb") as stream:
        while block := stream.read(AT_ONCE):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return size, crc


class StoreWriter:
    """Writes a store into an empty folder: `add` every tree in order, then `finish`.

    `largest` is the largest possible token id.
    """

    def __init__(self, folder: Path, largest: int) -> None:
        self.folder, self.ids = folder, "<u2" if largest < 1 << 15 else "<u4"
        self._open = ExitStack()
        self._tokens = self._file("tokens.bin")
        self._stretches, self._trees = self._file("stretches.bin"), self._file("trees.bin")
        self._origins, self._lines = self._file("origins.bin"), self._file("lines.bin")
        self._records, self._notes = self._file("records.jsonl"), self._file("notes.jsonl")
        self._held, self._supervised = array("I"), bytearray()
        self._ends = {file: array("q", [0]) for file in (self._stretches, self._trees, self._lines)}
        self._places = array("q")
        self._tokens_before = self._stretches_before = self._record = 0
        self._last: Record | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def add(self, tree: Tree, record: Record) -> None:
        """Add a tree and the record it was made from; trees of one record must follow each
        other."""
        if record is not self._last:
            self._add_record(record)
        self._places.append(self._record - 1)
        self._add_stretch(tree.trunk, bytes(len(tree.trunk)))
        for branch in tree.branches:
            self._add_stretch(branch.ids, bytes(branch.supervised))
        self._stretches_before += 1 + len(tree.branches)
        self._ends[self._trees].append(self._stretches_before)
        if len(self._held) >= AT_ONCE:
            self._flush()

    def finish(self, counts: Mapping[str, Any], notes: Iterable[Mapping[str, Any]] = ()) -> None:
        """Write what is left, the notes, and the card that makes these files a store."""
        self._flush()
        for note in notes:
            self._notes.write(json.dumps(note).encode() + b"\n")
        self._open.close()
        files = {
            file.path.name: {"size": file.size, "crc32": file.crc32}
            for file in (*self._ends, self._tokens, self._origins, self._records, self._notes)
        }
        card = {"version": VERSION, "ids": self.ids, "counts": dict(counts), "files": files}
        write_json(self.folder / CARD, card)

    def _file(self, name: str) -> _Written:
        return self._open.enter_context(_Written(self.folder / name))

    def _add_record(self, record: Record) -> None:
        self._last, self._record = record, self._record + 1
        self._records.write(json.dumps(_row(record), default=str).encode() + b"\n")
        self._ends[self._lines].append(self._records.size)

    def _add_stretch(self, ids: tuple[int, ...], supervised: bytes) -> None:
        self._held.extend(ids)
        self._supervised += supervised
        self._ends[self._stretches].append(self._tokens_before + len(self._held))

    def _flush(self) -> None:
        ids = np.frombuffer(self._held, np.uint32) << 1
        codes = ids | np.frombuffer(self._supervised, np.uint8)
        if codes.max(initial=0) > np.iinfo(self.ids).max:
            raise TextError(
                f"the tokenizer gives id {ids.max() >> 1}, which its vocabulary does not hold",
                fix="save the tokenizer again with all its tokens, or set text.cache: never",
            )
        self._tokens.write(codes.astype(self.ids).tobytes())
        self._tokens_before += len(ids)
        self._held, self._supervised = array("I"), bytearray()
        for file, ends in self._ends.items():
            file.write(ends.tobytes())
            self._ends[file] = array("q")
        self._origins.write(self._places.tobytes())
        self._places = array("q")


class _Written:
    """A file that is being written, its size and CRC-32 so far."""

    def __init__(self, path: Path) -> None:
        self.path, self.stream = path, path.open("wb")
        self.size = self.crc32 = 0

    def write(self, data: bytes) -> None:
        self.stream.write(data)
        self.size += len(data)
        self.crc32 = zlib.crc32(data, self.crc32)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()


class Mapped:
    """The numbers of a file, mapped into memory; at most `MAPPED` bytes of it stay mapped."""

    def __init__(self, path: Path, kind: str) -> None:
        with path.open("rb") as stream:
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        self._numbers: NDArray[Any] = np.frombuffer(self._map, kind)
        self._read = 0

    def __len__(self) -> int:
        return len(self._numbers)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """The numbers from `start` to before `stop`; use or copy them before the next read."""
        self._read += (stop - start) * self._numbers.itemsize + AROUND
        if self._read > MAPPED:
            self._map.madvise(mmap.MADV_DONTNEED)
            self._read = 0
        return self._numbers[start:stop]


@dataclass(frozen=True, slots=True)
class Notes:
    """The notes of a store, in order; every reading of them reads the file."""

    folder: Path

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with (self.folder / "notes.jsonl").open(encoding="utf-8") as stream:
            yield from map(json.loads, stream)


class StoredTrees(LazySequence[Tree]):
    """The trees of a store; each is read from its file on access."""

    def __init__(self, folder: Path, ids: str) -> None:
        self._tokens = Mapped(folder / "tokens.bin", ids)
        self._stretches = Mapped(folder / "stretches.bin", PLACES)
        self._trees = Mapped(folder / "trees.bin", PLACES)

    def __len__(self) -> int:
        return len(self._trees) - 1

    def at(self, index: int) -> Tree:
        first, last = self._trees.read(index, index + 2).tolist()
        places = self._stretches.read(first, last + 1).tolist()
        codes = self._tokens.read(places[0], places[-1])
        ids = (codes >> 1).tolist()
        supervised = (codes & 1).astype(bool).tolist()
        places = [place - places[0] for place in places]
        branches = (
            Branch(tuple(ids[start:stop]), tuple(supervised[start:stop]))
            for start, stop in pairwise(places[1:])
        )
        return Tree(tuple(ids[: places[1]]), tuple(branches))


class StoredRecords(LazySequence[Record]):
    """The records of a store, one for each of its trees.

    They are unchanged, except that a value in a column that JSON cannot express (a date of a
    Parquet file) has become text.
    """

    def __init__(self, folder: Path) -> None:
        self._origins = Mapped(folder / "origins.bin", PLACES)
        self._lines = Mapped(folder / "lines.bin", PLACES)
        self._records = Mapped(folder / "records.jsonl", "u1")

    def __len__(self) -> int:
        return len(self._origins)

    def __iter__(self) -> Iterator[Record]:
        """In order; a record of several trees is read once."""
        before, record = -1, None
        for index in range(len(self)):
            (number,) = self._origins.read(index, index + 1).tolist()
            if record is None or number != before:
                before, record = number, self._numbered(number)
            yield record

    def at(self, index: int) -> Record:
        (number,) = self._origins.read(index, index + 1).tolist()
        return self._numbered(number)

    def _numbered(self, number: int) -> Record:
        start, stop = self._lines.read(number, number + 2).tolist()
        return _record(json.loads(self._records.read(start, stop).tobytes()))


def _row(record: Record) -> dict[str, Any]:
    """`{"kind": "Feedback", "prompt": "2x = 6", ..., "origin": ["thumbs.jsonl", 3]}`."""
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    origin = [record.origin.path, record.origin.line]
    return {"kind": type(record).__name__, **values, "origin": origin}


def _record(row: dict[str, Any]) -> Record:
    kind, origin = KINDS[row.pop("kind")], Origin(*row.pop("origin"))
    return kind(**row, origin=origin)
