"""A known bias is removed, and no more records than that takes."""

from __future__ import annotations

import gzip
import json
import os
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.curate.balance import balance
from strop.curate.manifest import sources_of
from strop.errors import DataError, RecipeError
from strop.recipe.curate import BalanceSettings
from strop.recipe.loading.load import load
from strop.stats.auc import auc
from tests.support import ROOT
from tests.support.planned import read_jsonl, strop
from tests.support.runs import WriteRows

DATA = Path(os.environ.get("STROP_DATA", ROOT.parent / "shared/data"))

numbers = st.lists(st.integers(0, 6), min_size=1, max_size=12)


@given(numbers, numbers)
def test_auc_is_the_share_of_pairs_in_order(positive: list[int], negative: list[int]) -> None:
    wins = [(a > b) + 0.5 * (a == b) for a in positive for b in negative]
    assert auc(positive, negative) == pytest.approx(sum(wins) / len(wins))


def text(draw: random.Random, length: int) -> str:
    return "".join(draw.choices("abcdefgh", k=max(1, length)))


def pairs(count: int = 1000, longer: float = 0.75, seed: int = 0) -> list[dict[str, Any]]:
    """The chosen answer is the longer one with chance `longer`; pairs of all sizes."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        short = draw.randint(5, 300)
        one, two = text(draw, short), text(draw, short + draw.randint(1, 200))
        chosen, rejected = (two, one) if draw.random() < longer else (one, two)
        rows.append({"prompt": f"q{number}", "chosen": chosen, "rejected": rejected})
    return rows


def paired(rows: list[dict[str, Any]]) -> float:
    gaps = [len(row["chosen"]) - len(row["rejected"]) for row in rows]
    return sum((gap > 0) + 0.5 * (gap == 0) for gap in gaps) / len(gaps)


def pooled(rows: list[dict[str, Any]]) -> float:
    return auc([len(r["chosen"]) for r in rows], [len(r["rejected"]) for r in rows])


def thumbs(count: int = 1000, seed: int = 0) -> list[dict[str, Any]]:
    """Liked answers are longer; a third of all are liked."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        label = draw.random() < 1 / 3
        length = int(draw.gauss(220 if label else 150, 60))
        row = {"prompt": f"q{number}", "completion": text(draw, length), "label": label}
        rows.append(row)
    return rows


def of_label(rows: list[dict[str, Any]], label: bool) -> list[int]:
    return [len(row["completion"]) for row in rows if row["label"] is label]


def settings(**options: Any) -> BalanceSettings:
    return load(BalanceSettings, options)


class TestPairs:
    @pytest.mark.parametrize("longer", [0.75, 0.25])
    def test_the_bias_goes_and_most_pairs_stay(
        self, write_rows: WriteRows, tmp_path: Path, longer: float
    ) -> None:
        rows = pairs(longer=longer)
        out = tmp_path / "out.jsonl"
        report = balance(sources_of([write_rows("a.jsonl", rows)]), out, settings())
        kept = read_jsonl(out)
        assert report.before.auc == pytest.approx(paired(rows))
        assert report.before.pooled_auc == pytest.approx(pooled(rows))
        assert report.after.auc == pytest.approx(paired(kept))
        assert report.after.rows == len(kept)
        assert abs(paired(kept) - 0.5) <= 0.04
        assert abs(pooled(kept) - 0.5) <= 0.04
        assert len(kept) >= len(rows) / 2
        rarer = sum((len(r["chosen"]) > len(r["rejected"])) == (longer < 0.5) for r in rows)
        assert len(kept) == int(rarer / 0.46), "no more is dropped than the tolerance asks"
        dropped = read_jsonl(tmp_path / "out.dropped.jsonl")
        assert {row["kind"] for row in dropped} == {"length_bias"}
        assert len(dropped) + len(kept) == len(rows)

    def test_pairs_of_one_size_are_balanced_among_themselves(
        self, write_rows: WriteRows, tmp_path: Path
    ) -> None:
        """Short pairs prefer the short answer and long pairs the long one: over all pairs together
        length says little, in every size it says much."""
        draw = random.Random(0)
        rows = []
        for number in range(600):
            size, longer = ((20, 0.8), (400, 0.8))[number % 2]
            one, two = text(draw, size), text(draw, 2 * size)
            chosen, rejected = (two, one) if draw.random() < longer else (one, two)
            rows.append({"prompt": f"q{number}", "chosen": chosen, "rejected": rejected})
        out = tmp_path / "out.jsonl"
        balance(sources_of([write_rows("a.jsonl", rows)]), out, settings(tolerance=0.0))
        by_size = defaultdict(list)
        for row in read_jsonl(out):
            by_size[min(len(row["chosen"]), len(row["rejected"]))].append(row)
        assert sorted(by_size) == [20, 400]
        assert all(paired(held) == 0.5 for held in by_size.values())

    def test_what_is_balanced_stays_whole(self, write_rows: WriteRows, tmp_path: Path) -> None:
        rows = pairs(longer=0.5)
        out = tmp_path / "out.jsonl"
        report = balance(sources_of([write_rows("a.jsonl", rows)]), out, settings())
        assert read_jsonl(out) == rows
        assert report.before == report.after

    def test_ties_count_half_and_stay(self, write_rows: WriteRows, tmp_path: Path) -> None:
        row = {"prompt": "q", "chosen": "abc", "rejected": "abd"}
        ties = [row | {"prompt": f"t{n}"} for n in range(8)]
        long = [row | {"prompt": f"l{n}", "chosen": "abcd"} for n in range(6)]
        short = [row | {"prompt": "s0", "chosen": "ab"}]
        out = tmp_path / "out.jsonl"
        path = write_rows("a.jsonl", ties + long + short)
        report = balance(sources_of([path]), out, settings(tolerance=0.0))
        assert (report.before.auc, report.after.auc) == (10 / 15, 0.5)
        assert report.after.rows == 10

    def test_the_order_of_rows_does_not_count(self, write_rows: WriteRows, tmp_path: Path) -> None:
        rows = pairs()
        balance(sources_of([write_rows("a.jsonl", rows)]), tmp_path / "x.jsonl", settings())
        random.Random(3).shuffle(rows)
        balance(sources_of([write_rows("b.jsonl", rows)]), tmp_path / "y.jsonl", settings())
        x, y = ({r["prompt"] for r in read_jsonl(tmp_path / f"{n}.jsonl")} for n in "xy")
        assert x == y

    def test_words_are_another_unit(self, write_rows: WriteRows, tmp_path: Path) -> None:
        """In characters the chosen answer is always longer, in words never."""
        rows = [{"prompt": f"q{n}", "chosen": "extraordinary", "rejected": "a b"}
                for n in range(4)]  # fmt: skip
        inputs = sources_of([write_rows("a.jsonl", rows)])
        with pytest.raises(DataError, match="in every pair the same side is longer"):
            balance(inputs, tmp_path / "x.jsonl", settings(unit="characters"))
        assert not (tmp_path / "x.jsonl").exists()
        loose = settings(unit="words", tolerance=0.499)
        with pytest.raises(DataError, match="in every pair"):
            balance(inputs, tmp_path / "x.jsonl", loose)


class TestThumbs:
    def test_lengths_are_alike_under_both_labels(
        self, write_rows: WriteRows, tmp_path: Path
    ) -> None:
        rows = thumbs()
        out = tmp_path / "out.jsonl"
        report = balance(sources_of([write_rows("a.jsonl", rows)]), out, settings())
        kept = read_jsonl(out)
        assert report.before.auc == pytest.approx(auc(of_label(rows, True), of_label(rows, False)))
        assert report.before.auc is not None
        assert report.before.auc > 0.75
        after = auc(of_label(kept, True), of_label(kept, False))
        assert report.after.auc == pytest.approx(after)
        assert abs(after - 0.5) <= 0.04
        assert report.after.liked == pytest.approx(report.before.liked, abs=0.02), "not the labels"
        assert len(kept) >= len(rows) / 2

    def test_labels_are_evened_out(self, write_rows: WriteRows, tmp_path: Path) -> None:
        rows = thumbs()
        liked = sum(row["label"] for row in rows)
        inputs = sources_of([write_rows("a.jsonl", rows)])
        one = balance(inputs, tmp_path / "x.jsonl", settings(remove="label"))
        assert (one.after.rows, one.after.liked) == (2 * liked, 0.5)
        two = balance(inputs, tmp_path / "y.jsonl", settings(remove="label", ratio=1.5))
        assert two.after.rows == liked + int(1.5 * liked)
        kept = read_jsonl(tmp_path / "y.jsonl")
        assert [r for r in kept if r["label"]] == [r for r in rows if r["label"]]

    def test_lengths_without_overlap_cannot_be_balanced(
        self, write_rows: WriteRows, tmp_path: Path
    ) -> None:
        rows = [{"prompt": f"q{n}", "completion": "a" * (10 if n % 2 else 99), "label": n % 2 == 0}
                for n in range(20)]  # fmt: skip
        with pytest.raises(DataError, match="no lengths in common"):
            balance(sources_of([write_rows("a.jsonl", rows)]), tmp_path / "x.jsonl", settings())


class TestRefusals:
    def test_records_that_have_no_such_bias(self, write_rows: WriteRows, tmp_path: Path) -> None:
        sft = {"prompt": "a", "completion": "b"}
        out = tmp_path / "x.jsonl"
        with pytest.raises(DataError, match=r"a.jsonl:1: a demonstration has no good and bad"):
            balance(sources_of([write_rows("a.jsonl", [sft])]), out, settings())
        mixed = write_rows("b.jsonl", [*pairs(2), sft])
        with pytest.raises(DataError, match=r"b.jsonl:3: a demonstration among records"):
            balance(sources_of([mixed]), out, settings())
        with pytest.raises(DataError, match="a preference has no label"):
            balance(sources_of([mixed]), out, settings(remove="label"))
        liked = write_rows("c.jsonl", [sft | {"label": True}] * 3)
        with pytest.raises(DataError, match="all answers are liked"):
            balance(sources_of([liked]), out, settings(remove="label"))
        assert not out.exists()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"remove": "label", "tolerance": 0.1}, "`tolerance` is not read with `remove: label`"),
            ({"ratio": 2}, "`ratio` is not read with `remove: length`"),
            ({"tolerance": 0.5}, "less than 0.5"),
            ({"remove": "style"}, "'style' is none of length, label"),
        ],
    )
    def test_settings(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(RecipeError, match=message):
            settings(**options)


def test_the_command_prints_both_figures(write_rows: WriteRows, tmp_path: Path) -> None:
    path, out = write_rows("a.jsonl", pairs()), tmp_path / "out.jsonl"
    shown = strop("data", "balance", path, "--output", out, "--tolerance", "0.02")
    found = json.loads(strop("data", "balance", path, "--output", out, "--overwrite", "--json"))
    assert f"{found['before']['auc']:.3f}   0.520" in shown
    assert found["after"]["auc"] == pytest.approx(0.54, abs=0.002)
    assert all(len(line) <= 100 for line in shown.splitlines()[:-1])


@pytest.mark.realdata
@pytest.mark.skipif(not DATA.exists(), reason=f"no public data at {DATA} (set STROP_DATA)")
def test_right_and_wrong_solutions_of_gsm8k(write_rows: WriteRows, tmp_path: Path) -> None:
    """On a subset in which the right answer is the longer one in 70 to 75 % of the pairs."""
    by_question: dict[str, dict[str, list[str]]] = {}
    with gzip.open(DATA / "gsm8k/model_solutions.jsonl.gz", "rt", encoding="utf-8") as lines:
        solved = [json.loads(line) for line in lines]
    for row in solved:
        said = by_question.setdefault(row["question"], {"True": [], "False": []})
        said[str(row["is_correct"])].append(row["solution"])
    real = [
        {"prompt": question, "chosen": right, "rejected": wrong}
        for question, said in by_question.items()
        for right in said["True"]
        for wrong in said["False"]
    ]
    draw = random.Random(0)
    biased = [
        row for row in real if len(row["chosen"]) > len(row["rejected"]) or draw.random() < 0.4
    ]
    assert len(real) > 300
    assert 0.7 <= paired(biased) <= 0.76
    out = tmp_path / "out.jsonl"
    report = balance(sources_of([write_rows("a.jsonl", biased)]), out, settings())
    assert report.after.auc is not None
    assert 0.45 <= report.after.auc <= 0.55
    assert 0.45 <= pooled(read_jsonl(out)) <= 0.55
    assert report.after.rows >= len(biased) / 2
