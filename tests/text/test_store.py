"""A store gives back the trees and records that were written, or there is no store."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from strop.errors import TextError
from strop.text import store as module
from strop.text.store import CARD, Store, StoreWriter, open_store
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

HERE = Origin("data.jsonl", 3)
CHAT = [{"role": "user", "content": "2x = 6"}, {"role": "assistant", "content": None}]
RECORDS: list[Record] = [
    Document("text \u2028 with \U0001f600", {"source": "wiki"}, HERE),
    Demonstration(CHAT, [{"role": "assistant", "content": "x = 3"}], {"tools": [{}]}, HERE),
    Preference("2x = 6", "x = 3", "", {"margin": 0.1, "n": 2**60, "deep": {"a": [1, None]}}, HERE),
    Feedback("2x = 6\n", "x = \ud800", False, {}, Origin("thumbs \u00e9.jsonl", 10**9)),
    Task("2x = 6", {"answer": "3"}, HERE),
]


def random_trees(count: int, largest: int) -> list[Tree]:
    """Trees of every shape: without a trunk, without branches, with empty ones, all ids."""
    draw = random.Random(count)

    def ids(most: int) -> tuple[int, ...]:
        return tuple(draw.choice((0, 1, largest, draw.randint(0, largest))) for _ in range(most))

    def branch() -> Branch:
        made = ids(draw.randint(0, 9))
        return Branch(made, tuple(draw.random() < 0.5 for _ in made))

    shapes = [(draw.randint(0, 5), draw.randint(0, 3)) for _ in range(count)]
    trees = [Tree(ids(trunk), tuple(branch() for _ in range(n))) for trunk, n in shapes]
    return [*trees, Tree((largest,), ())]


def written(folder: Path, trees: list[Tree], records: list[Record], largest: int) -> Store:
    folder.mkdir(exist_ok=True)
    with StoreWriter(folder, largest) as writer:
        for tree, record in zip(trees, records, strict=True):
            writer.add(tree, record)
        writer.finish({"dropped": 7})
    found = open_store(folder)
    assert found is not None
    return found


@pytest.mark.parametrize("largest", [3, (1 << 15) - 1, 1 << 15, 151_000])
@pytest.mark.parametrize("at_once", [1, 1 << 20])
def test_trees_come_back_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, largest: int, at_once: int
) -> None:
    """Ids, masks and shapes, as the same Python values; in two bytes a token where they fit."""
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    trees = random_trees(200, largest)
    found = written(tmp_path, trees, [RECORDS[0]] * len(trees), largest)
    assert list(found.trees) == trees
    assert repr(list(found.trees)) == repr(trees)  # True is not 1
    assert found.counts == {"dropped": 7}
    tokens = sum(map(len, trees))
    assert (tmp_path / "tokens.bin").stat().st_size == tokens * (2 if largest < 1 << 15 else 4)


def test_records_come_back_in_any_order(tmp_path: Path) -> None:
    records = [RECORDS[n % len(RECORDS)] for n in range(40)]
    found = written(tmp_path, random_trees(39, 9), records, 9)
    assert list(found.records) == records
    assert [found.records[i] for i in (17, 3, -1)] == [records[17], records[3], records[-1]]


def test_pieces_of_a_document_share_its_record(tmp_path: Path) -> None:
    """It is written once; the next one may say the same and is another record all the same."""
    first, again = (Document("a" * 999, {}, Origin("c.jsonl", line)) for line in (1, 2))
    records: list[Record] = [first, first, first, again, again]
    found = written(tmp_path, random_trees(4, 9), records, 9)
    assert list(found.records) == records
    assert found.records[4] == again
    assert len((tmp_path / "records.jsonl").read_text().splitlines()) == 2


def test_what_json_has_no_form_for_becomes_its_text(tmp_path: Path) -> None:
    record = Task("2x = 6", {"day": date(2026, 1, 2), "margin": 0.5}, HERE)
    found = written(tmp_path, [Tree((1,), ())], [record], 9)
    assert found.records[0].columns == {"day": "2026-01-02", "margin": 0.5}


def test_what_was_read_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever that happens, it shows in no value."""
    monkeypatch.setattr(module, "MAPPED", 0)
    trees = random_trees(50, 40_000)
    found = written(tmp_path, trees, [RECORDS[1]] * len(trees), 40_000)
    assert list(found.trees) == trees
    assert found.records[7] == RECORDS[1]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


FILES = ["tokens.bin", "stretches.bin", "trees.bin", "origins.bin", "records.jsonl", "lines.bin"]


@pytest.mark.parametrize("spoil", [_cut, _flip, _longer, Path.unlink])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_as_it_was_written(
    tmp_path: Path, name: str, spoil: Callable[[Path], None]
) -> None:
    trees = random_trees(9, 9)
    written(tmp_path, trees, [RECORDS[1]] * len(trees), 9)
    spoil(tmp_path / name)
    assert open_store(tmp_path) is None


@pytest.mark.parametrize("card", [None, "", "{", "[]", "7", '{"version": 1}', '{"files": {}}'])
def test_a_card_that_is_none(tmp_path: Path, card: str | None) -> None:
    written(tmp_path, [Tree((1,), ())], [RECORDS[1]], 9)
    (tmp_path / CARD).unlink()
    if card is not None:
        (tmp_path / CARD).write_text(card)
    assert open_store(tmp_path) is None


def test_another_version(tmp_path: Path) -> None:
    written(tmp_path, [Tree((1,), ())], [RECORDS[1]], 9)
    card = json.loads((tmp_path / CARD).read_text())
    (tmp_path / CARD).write_text(json.dumps({**card, "version": card["version"] + 1}))
    assert open_store(tmp_path) is None


def test_an_unfinished_one(tmp_path: Path) -> None:
    with StoreWriter(tmp_path, 9) as writer:
        writer.add(Tree((1,), ()), RECORDS[1])
    assert open_store(tmp_path) is None
    assert open_store(tmp_path / "nowhere") is None


def test_an_id_beyond_the_largest_is_never_cut_to_fit(tmp_path: Path) -> None:
    """A tokenizer that gives an id that is not in its own vocabulary."""
    with pytest.raises(TextError, match="gives id 40000"):
        written(tmp_path, [Tree((40_000,), ())], [RECORDS[1]], 9)
