"""The figures of docs/statistics.md keep the gate's promises, and the command can write them."""

from __future__ import annotations

import re

import pytest

from evidence.simulations import TABLES, Bench, written
from tests.support import ROOT

PAGE = (ROOT / "docs/statistics.md").read_text()


def rows(name: str) -> list[list[str]]:
    """Cells of a table's body."""
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- end -->", PAGE, flags=re.S)
    assert found, name
    lines = [line for line in found[1].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def parts(name: str, first: int) -> list[list[float]]:
    return [[float(x) for x in cell.split(" / ")] for row in rows(name) for cell in row[first:]]


def test_level_of_scores_0_or_1() -> None:
    assert len(rows("at the margin")) == 5
    assert max(value for (value,) in parts("at the margin", 1)) <= 6
    assert max(worse for worse, _, _ in parts("unchanged", 1)) <= 5
    assert max(better for _, better, _ in parts("unchanged", 1)) <= 5
    assert min(covered for _, _, covered in parts("unchanged", 1)) >= 94


def test_ten_points_worse() -> None:
    for _, passed, _, rule in rows("ten points"):
        assert float(passed) <= 1
        assert 35 <= float(rule) <= 45


@pytest.mark.parametrize(("name", "first"), [("clustered", 2), ("samples", 1)])
def test_level_of_clusters(name: str, first: int) -> None:
    cells = parts(name, first)
    assert len(cells) >= 12
    assert max(passed for passed, _ in cells) <= 6.5
    assert max(worse for _, worse in cells) <= 5


@pytest.mark.parametrize("name", ["needed flips", "needed clusters"])
def test_sample_sizes_within_a_tenth(name: str) -> None:
    off = [float(found) for row in rows(name) for found in re.findall(r"\(([+-].*?) %\)", str(row))]
    assert len(off) >= 18
    assert max(map(abs, off)) <= 10


def test_the_command_fills_its_place_and_no_other() -> None:
    page = "before\n<!-- ratios -->\nold\n<!-- end -->\n<!-- samples -->\nkept\n<!-- end -->\n"
    new = written(page, "ratios", [["50", "2.5", "95.0"]])
    assert "| 50 | 2.5 | 95.0 |" in new
    assert "old" not in new
    assert new.endswith("<!-- samples -->\nkept\n<!-- end -->\n")
    with pytest.raises(SystemExit, match="no place for the table 'unchanged'"):
        written(page, "unchanged", [])


def test_tables_are_seeded() -> None:
    header, table = TABLES["ten points"]
    assert table(Bench(200)) == table(Bench(200))
    assert all(len(row) == len(header) for row in table(Bench(200)))
