"""Mixtures hold exactly their shares, spread over the file."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.curate.manifest import sources_of
from strop.curate.mix import MixReport, _rows_of, mix
from strop.errors import DataError, UsageError
from strop.recipe.curate import MixSettings
from tests.support.planned import read_jsonl, strop
from tests.support.runs import WriteRows


def rows_from(name: str, count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"{name}{n}", "completion": "x", "from": name} for n in range(count)]


def mixed(
    paths: list[Path], out: Path, shares: list[float], rows: int | None = None, seed: int = 0
) -> tuple[MixReport, list[dict[str, Any]]]:
    settings = MixSettings(shares=shares, rows=rows, seed=seed)
    report = mix(sources_of(paths), out, settings, overwrite=True)
    return report, read_jsonl(out)


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=5), st.integers(1, 500))
def test_rows_add_up_and_are_within_one_of_their_share(shares: list[float], total: int) -> None:
    rows = _rows_of([1] * len(shares), MixSettings(shares=shares, rows=total))
    assert sum(rows) == total
    for got, share in zip(rows, shares, strict=True):
        assert abs(got - share / sum(shares) * total) < 1 + 1e-6


@pytest.fixture
def two(write_rows: WriteRows) -> list[Path]:
    return [write_rows("a.jsonl", rows_from("a", 100)), write_rows("b.jsonl", rows_from("b", 10))]


class TestShares:
    def test_exact_and_upsampled(self, two: list[Path], tmp_path: Path) -> None:
        report, rows = mixed(two, tmp_path / "out.jsonl", [0.7, 0.3], rows=100)
        counts = Counter(row["from"] for row in rows)
        assert counts == {"a": 70, "b": 30}
        times = Counter(row["prompt"] for row in rows)
        assert {times[f"b{n}"] for n in range(10)} == {3}
        assert max(times[f"a{n}"] for n in range(100)) == 1
        assert [(one.have, one.rows, one.times) for one in report.inputs] == [
            (100, 70, 1), (10, 30, 3)
        ]  # fmt: skip
        assert "upsampled: its 10 records up to 3 times" in report.sentence
        dropped = read_jsonl(tmp_path / "out.dropped.jsonl")
        assert len(dropped) == 30
        assert {row["kind"] for row in dropped} == {"beyond_share"}

    def test_a_partial_round_is_drawn(self, two: list[Path], tmp_path: Path) -> None:
        _, rows = mixed(two, tmp_path / "out.jsonl", [3, 1], rows=100)
        times = Counter(row["prompt"] for row in rows if row["from"] == "b")
        assert sorted(times.values()) == [2] * 5 + [3] * 5

    def test_without_rows_nothing_is_repeated(self, two: list[Path], tmp_path: Path) -> None:
        report, rows = mixed(two, tmp_path / "out.jsonl", [0.7, 0.3])
        assert Counter(row["from"] for row in rows) == {"a": 23, "b": 10}
        assert all(one.times == 1 for one in report.inputs)

    def test_every_stretch_of_the_file_has_the_shares(
        self, two: list[Path], tmp_path: Path
    ) -> None:
        _, rows = mixed(two, tmp_path / "out.jsonl", [0.7, 0.3], rows=100)
        for place in range(1, 101):
            share = sum(row["from"] == "b" for row in rows[:place])
            assert abs(share - 0.3 * place) < 1
        own = [row["prompt"] for row in rows if row["from"] == "a"]
        assert own == sorted(own, key=lambda prompt: int(prompt[1:])), "each keeps its order"

    def test_the_draw_depends_on_seed_and_content_alone(
        self, two: list[Path], tmp_path: Path, write_rows: WriteRows
    ) -> None:
        first = mixed(two, tmp_path / "x.jsonl", [1, 1], rows=20)[1]
        again = mixed(two, tmp_path / "x.jsonl", [1, 1], rows=20)[1]
        other = mixed(two, tmp_path / "x.jsonl", [1, 1], rows=20, seed=1)[1]
        turned = rows_from("a", 100)
        random.Random(0).shuffle(turned)
        moved = mixed([write_rows("c.jsonl", turned), two[1]], tmp_path / "x.jsonl", [1, 1], 20)[1]
        assert first == again
        assert {row["prompt"] for row in first} == {row["prompt"] for row in moved}
        assert {row["prompt"] for row in first} != {row["prompt"] for row in other}

    def test_a_share_too_small_for_a_row(self, two: list[Path], tmp_path: Path) -> None:
        report, rows = mixed(two, tmp_path / "out.jsonl", [0.99, 0.01], rows=10)
        assert Counter(row["from"] for row in rows) == {"a": 10}
        assert report.inputs[1].rows == 0


class TestRefusals:
    def test_two_kinds(self, two: list[Path], write_rows: WriteRows, tmp_path: Path) -> None:
        pairs = [{"prompt": "a", "chosen": "b", "rejected": "c"}]
        other = write_rows("pairs.jsonl", pairs)
        with pytest.raises(
            DataError, match=r"pairs.jsonl: holds preference records, but .*a.jsonl"
        ):
            mixed([two[0], other], tmp_path / "out.jsonl", [1, 1])
        both = write_rows("both.jsonl", [*rows_from("a", 2), *pairs])
        with pytest.raises(DataError, match=r"both.jsonl:3: a preference among records"):
            mixed([both], tmp_path / "out.jsonl", [1])
        assert not (tmp_path / "out.jsonl").exists()

    def test_shares_that_do_not_fit(self, two: list[Path], tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="2 inputs and 1 shares"):
            mixed(two, tmp_path / "out.jsonl", [1])
        with pytest.raises(UsageError, match="every file needs its share"):
            strop("data", "mix", two[0], "--output", tmp_path / "out.jsonl")
        with pytest.raises(UsageError, match="greater than 0"):
            strop("data", "mix", f"{two[0]}=-1", "--output", tmp_path / "out.jsonl")


def test_the_command(two: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    args = ["data", "mix", f"{two[0]}=0.5", f"{two[1]}=0.5", "--rows", 50, "--output", out]
    found = json.loads(strop(*args, "--json"))
    assert found["rows"] == 50
    assert found["inputs"][1] == {"name": str(two[1]), "have": 10, "rows": 25, "times": 3}
    manifest = json.loads((tmp_path / "out.manifest.json").read_text())
    assert manifest["files"]["out.jsonl"]["rows"] == 50
    assert "upsampled, up to 3 times" in strop(*args, "--overwrite")
