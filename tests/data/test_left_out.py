"""Rows that are left out: counted and told in full, without being held in memory."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from strop.data.bad_rows import BadRow, LeftOut, Sieve, counted, lines_of
from strop.errors import DataError
from strop.recipe.loading.load import load_recipe
from strop.train.preflight.prepare import prepare
from strop.types import Origin
from tests.support.runs import write_jsonl

MANY = 40_000


def row(line: int, kind: str = "empty", *, excess: bool = False) -> BadRow:
    return BadRow(kind, f"reason {line}", Origin("pairs.jsonl", line), excess)


def test_rows_come_back_as_they_were_and_in_order() -> None:
    rows = [row(1), row(2, "too_long", excess=True), row(9, "rôle"), row(10), row(11), row(12)]
    left = LeftOut(rows[:4])
    assert list(left) == rows[:4]
    assert next(iter(left)) == rows[0]  # a reading that is broken off
    left.extend(rows[4:])
    assert list(left) == rows == list(left)
    assert len(left) == 6
    assert left.kinds == {"empty": 4, "too_long": 1, "rôle": 1}
    assert left.faults == {"empty": 4, "rôle": 1}
    assert [one.origin.line for one in left.first["empty"]] == [1, 10, 11]
    assert lines_of(left) == [
        "  4 empty", "    pairs.jsonl:1: reason 1", "    pairs.jsonl:10: reason 10",
        "    pairs.jsonl:11: reason 11", "  1 rôle", "    pairs.jsonl:9: reason 9",
    ]  # fmt: skip
    assert counted(left) == (
        "4 empty (pairs.jsonl:1), 1 too_long (pairs.jsonl:2), 1 rôle (pairs.jsonl:9)"
    )
    assert not LeftOut()


def test_long_rows_do_not_count_against_the_share() -> None:
    sieve = Sieve("pairs.jsonl", max_bad=0.5)
    for line in range(1, 11):
        sieve.look()
        if line <= 5:
            sieve.drop(DataError("it is empty", kind="empty"), Origin("pairs.jsonl", line))
        else:
            sieve.leave_out("too_long", "longer than 8 tokens", Origin("pairs.jsonl", line))
    sieve.expect_clean()
    sieve.max_bad = 0.4
    with pytest.raises(DataError, match=r"5 of 10 rows \(50\.00%\) cannot be used") as told:
        sieve.expect_clean()
    assert "too_long" not in str(told.value)
    assert told.value.kind == "empty"


@pytest.mark.parametrize("kind", ["too_long", "bad"])
def test_what_is_held_does_not_grow_with_the_rows(kind: str) -> None:
    """A row took about 300 bytes; 40,000 of them are 12 MB, and the file holds 1 MiB of them."""
    sieve = Sieve("pairs.jsonl", max_bad=1.0)
    tracemalloc.start()
    try:
        for line in range(MANY):
            sieve.look()
            if kind == "bad":
                sieve.drop(DataError(f"`{line}` is empty", kind="bad"), Origin("pairs.jsonl", line))
            else:
                sieve.leave_out(kind, f"longer than {line} tokens", Origin("pairs.jsonl", line))
        assert [one.origin.line for one in sieve.dropped] == list(range(MANY))
        assert tracemalloc.get_traced_memory()[0] < 3_000_000  # the list above is part of it
    finally:
        tracemalloc.stop()
    assert len(sieve.dropped.first[kind]) == 3


def test_a_source_of_which_most_rows_are_too_long(
    recipes: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows held are the same three for 40 long rows and for 400; all of them are reported."""
    monkeypatch.setattr("strop.data.bad_rows.HELD", 1000)
    for long in (40, 400):
        rows = [{"prompt": f"{n}x = 6", "completion": "x = 12345678" * 20} for n in range(long)]
        rows += [{"prompt": f"{n}x = 6", "completion": "x = 6"} for n in range(8)]
        data = write_jsonl(tmp_path / "long.jsonl", rows)
        options = ["eval=null", f"data={json.dumps({'path': str(data)})}"]
        found = prepare(
            load_recipe(recipes["sft"], options), resume=False, overwrite=True, force=True
        )
        (report,) = found.sources
        assert report.plain()["dropped"] == {"too_long": long}
        assert [one.origin.line for one in report.dropped.first["too_long"]] == [1, 2, 3]
        assert [one.origin.line for one in report.dropped] == list(range(1, long + 1))
