"""Splits: nothing leaks by construction, nothing depends on the order of the rows."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from strop.curate.manifest import sources_of
from strop.curate.split import SplitReport, split
from strop.data.duplicates import alike_groups, first_alike, words
from strop.errors import DataError, OutputError, RecipeError, UsageError
from strop.recipe.curate import SplitSettings
from strop.recipe.loading.load import load
from tests.support.planned import read_jsonl, strop
from tests.support.runs import WriteRows

VOCABULARY = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in "prstz"]


def prose(draw: random.Random, count: int = 30) -> str:
    return " ".join(draw.choices(VOCABULARY, k=count))


def varied(text: str, draw: random.Random) -> str:
    """The same text with one word replaced."""
    listed = text.split()
    listed[draw.randrange(len(listed))] = "".join(draw.choices("vwxyz", k=12))
    return " ".join(listed)


def planted(seed: int = 0) -> list[dict[str, Any]]:
    """200 prompts, every fifth twice with another answer and twice with one word changed; `origin`
    names the prompt that a row was made from."""
    draw = random.Random(seed)
    rows = []
    for number in range(200):
        text = prose(draw)
        variants = [text] if number % 5 else [text, text, varied(text, draw), varied(text, draw)]
        rows += [
            {"prompt": one, "completion": f"answer {number} {copy}", "origin": number,
             "kind": "abc"[number % 3], "meta": {"time": f"2026-01-01T{number // 60:02}:"
             f"{number % 60:02}:00+00:00", "user": number // 4}}
            for copy, one in enumerate(variants)
        ]  # fmt: skip
    return rows


def parts(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {file.stem: read_jsonl(file) for file in folder.glob("*.jsonl")}


def sides(folder: Path, key: str = "origin") -> dict[Any, set[str]]:
    """For every value the parts in which it is."""
    found: dict[Any, set[str]] = {}
    for name, rows in parts(folder).items():
        for row in rows:
            found.setdefault(row.get(key, row["meta"].get(key)), set()).add(name)
    return found


def run(path: Path, out: Path, **options: Any) -> SplitReport:
    return split(sources_of([path]), out, load(SplitSettings, options), overwrite=True)


class TestLeaks:
    def test_a_prompt_and_its_near_duplicates_stay_together(
        self, write_rows: WriteRows, tmp_path: Path
    ) -> None:
        path = write_rows("all.jsonl", planted())
        report = run(path, tmp_path / "out")
        assert all(len(where) == 1 for where in sides(tmp_path / "out").values())
        assert report.groups == 200
        assert report.near == 80, "two of each of forty prompts are near-duplicates"
        total = sum(report.rows.values())
        assert total == 320 == sum(len(rows) for rows in parts(tmp_path / "out").values())
        shares = {name: count / total for name, count in report.rows.items()}
        assert shares == pytest.approx({"train": 0.8, "validation": 0.1, "test": 0.1}, abs=0.015)

    def test_without_near_the_planted_ones_leak(
        self, write_rows: WriteRows, tmp_path: Path
    ) -> None:
        """The test above could fail: equal prompts stay together here, similar ones do not."""
        path = write_rows("all.jsonl", planted())
        report = run(path, tmp_path / "out", near=False)
        assert any(len(where) > 1 for where in sides(tmp_path / "out").values())
        assert (report.groups, report.near) == (280, 0)
        prompts = sides(tmp_path / "out", "prompt")
        assert all(len(where) == 1 for where in prompts.values())

    def test_a_chain_of_near_duplicates_is_one_group(self) -> None:
        """c repeats b and b repeats a, but c does not repeat a: `first_alike` calls c new."""
        draw = random.Random(1)
        a = draw.sample(VOCABULARY, 60)
        b = [*draw.sample(VOCABULARY, 8), *a[8:]]
        c = [*b[:-8], *draw.sample(VOCABULARY, 8)]
        chain = [words(" ".join(text)) for text in (a, c, b)]
        assert first_alike(chain) == [0, 1, 0]
        assert alike_groups(chain) == [0, 0, 0]
        assert alike_groups([*chain, words(prose(draw))]) == [0, 0, 0, 3]

    def test_numbers_and_short_prompts_make_other_questions(
        self, write_rows: WriteRows, tmp_path: Path
    ) -> None:
        rows = [{"prompt": f"Solve {n}x + 7 = 22", "completion": "x"} for n in range(40)]
        report = run(write_rows("a.jsonl", rows), tmp_path / "out", fractions={"a": 0.5, "b": 0.5})
        assert report.rows == {"a": 20, "b": 20}
        assert report.near == 0

    def test_a_group_column_holds_rows_together_through_prompts(
        self, write_rows: WriteRows, tmp_path: Path
    ) -> None:
        path = write_rows("all.jsonl", planted())
        report = run(path, tmp_path / "out", group="meta.user")
        assert all(len(where) == 1 for where in sides(tmp_path / "out", "user").values())
        assert report.groups == 50


class TestDeterminism:
    @pytest.mark.parametrize("options", [{}, {"by": "kind"}, {"time": "meta.time"}])
    def test_the_order_of_rows_does_not_count(
        self, write_rows: WriteRows, tmp_path: Path, options: dict[str, str]
    ) -> None:
        rows = planted()
        run(write_rows("one.jsonl", rows), tmp_path / "one", **options)
        random.Random(5).shuffle(rows)
        run(write_rows("two.jsonl", rows), tmp_path / "two", **options)
        one, two = (
            {name: {json.dumps(row) for row in rows} for name, rows in parts(tmp_path / n).items()}
            for n in ("one", "two")
        )
        assert one == two

    def test_another_seed_is_another_split(self, write_rows: WriteRows, tmp_path: Path) -> None:
        path = write_rows("all.jsonl", planted())
        run(path, tmp_path / "a")
        run(path, tmp_path / "b", seed=1)
        assert parts(tmp_path / "a") != parts(tmp_path / "b")

    def test_most_rows_keep_their_part_when_some_are_added(
        self, write_rows: WriteRows, tmp_path: Path
    ) -> None:
        rows = planted()
        run(write_rows("a.jsonl", rows), tmp_path / "a")
        more = [{**row, "origin": -row["origin"] - 1} for row in planted(seed=9)[:32]]
        run(write_rows("b.jsonl", rows + more), tmp_path / "b")
        before, after = sides(tmp_path / "a"), sides(tmp_path / "b")
        moved = sum(before[origin] != after[origin] for origin in before)
        assert moved <= 10


class TestStrata:
    def test_every_part_has_the_same_shares(self, write_rows: WriteRows, tmp_path: Path) -> None:
        rows = [{"prompt": f"question {n}", "completion": "a", "kind": "abc"[n % 10 // 4]}
                for n in range(1000)]  # fmt: skip
        fractions = {"train": 0.8, "validation": 0.1, "test": 0.1}
        run(write_rows("a.jsonl", rows), tmp_path / "out", by="kind", fractions=fractions)
        for name, held in parts(tmp_path / "out").items():
            counts = Counter(row["kind"] for row in held)
            exact = {"a": 400, "b": 400, "c": 200}
            for kind, count in exact.items():
                assert counts[kind] == pytest.approx(count * fractions[name], abs=1)

    def test_small_strata_reach_every_part(self, write_rows: WriteRows, tmp_path: Path) -> None:
        """Each has two rows: cut at 80 % one by one, none would ever be tested on."""
        rows = [{"prompt": f"question {n}", "completion": "a", "kind": n // 2} for n in range(600)]
        report = run(write_rows("a.jsonl", rows), tmp_path / "out", by="kind")
        assert report.rows["test"] == pytest.approx(60, abs=20)
        assert report.rows["train"] == pytest.approx(480, abs=40)


class TestTime:
    def test_nothing_in_train_is_later_than_a_cut(
        self, write_rows: WriteRows, tmp_path: Path
    ) -> None:
        rows = planted()
        random.Random(2).shuffle(rows)
        report = run(write_rows("a.jsonl", rows), tmp_path / "out", time="meta.time")
        held = parts(tmp_path / "out")
        latest = {name: max(row["meta"]["time"] for row in rows) for name, rows in held.items()}
        assert report.cuts == (latest["train"], latest["validation"])
        assert min(r["meta"]["time"] for r in held["validation"]) > latest["train"]
        assert min(r["meta"]["time"] for r in held["test"]) > latest["validation"]
        assert report.rows["train"] == pytest.approx(256, abs=3)

    def test_a_prompt_that_comes_again_late_is_as_late(
        self, write_rows: WriteRows, tmp_path: Path
    ) -> None:
        rows = [{"prompt": f"q{n}", "completion": "a", "time": n} for n in range(10)]
        rows.append({"prompt": "q0", "completion": "b", "time": 20})
        run(write_rows("a.jsonl", rows), tmp_path / "out", time="time",
            fractions={"train": 0.7, "test": 0.3})  # fmt: skip
        held = parts(tmp_path / "out")
        assert {row["prompt"] for row in held["test"]} == {"q0", "q9"}
        assert max(row["time"] for row in held["train"]) == 8

    def test_times_in_every_spelling_are_compared(
        self, write_rows: WriteRows, tmp_path: Path
    ) -> None:
        times = ["2026-01-01", "2026-01-01T02:00:00+03:00", "2026-01-02T00:00:00Z", 1767571200]
        rows = [{"prompt": f"q{n}", "completion": "a", "at": at} for n, at in enumerate(times)]
        run(write_rows("a.jsonl", rows), tmp_path / "out", time="at",
            fractions={"a": 0.25, "b": 0.25, "c": 0.25, "d": 0.25})  # fmt: skip
        order = [row["prompt"] for name in "abcd" for row in parts(tmp_path / "out")[name]]
        assert order == ["q1", "q0", "q2", "q3"], "02:00 in +03:00 is the evening before"

    @pytest.mark.parametrize("unit", [1, 1_000, 1_000_000, 1_000_000_000])
    def test_every_unit_gives_one_cut(
        self, write_rows: WriteRows, tmp_path: Path, unit: int
    ) -> None:
        rows = [
            {"prompt": f"q{n}", "completion": "a", "at": (1_767_225_600 + 86_400 * n) * unit}
            for n in range(10)
        ]
        report = run(write_rows("a.jsonl", rows), tmp_path / "out", time="at",
                     fractions={"train": 0.5, "test": 0.5})  # fmt: skip
        assert report.cuts == ("2026-01-05T00:00:00+00:00",)

    def test_before_1970_and_where_counting_starts(
        self, write_rows: WriteRows, tmp_path: Path
    ) -> None:
        times = [-86_400, -1.5, 0.0, 86_400]
        rows = [{"prompt": f"q{n}", "completion": "a", "at": at} for n, at in enumerate(times)]
        report = run(write_rows("a.jsonl", rows), tmp_path / "out", time="at",
                     fractions={"train": 0.5, "test": 0.5})  # fmt: skip
        assert report.cuts == ("1969-12-31T23:59:58.500000+00:00",)

    @pytest.mark.parametrize("odd", [float("nan"), float("inf"), -1e30, True, "\u00b2"])
    def test_what_is_no_time(self, write_rows: WriteRows, tmp_path: Path, odd: object) -> None:
        rows = [{"prompt": f"q{n}", "completion": "a", "at": n} for n in range(9)]
        path = write_rows("a.jsonl", [*rows, {"prompt": "odd", "completion": "a", "at": odd}])
        with pytest.raises(DataError, match=r"a.jsonl:10: the time `at` is neither"):
            run(path, tmp_path / "out", time="at", fractions={"train": 0.5, "test": 0.5})
        assert not (tmp_path / "out").exists()

    def test_a_row_without_a_time_is_a_bad_row(self, write_rows: WriteRows, tmp_path: Path) -> None:
        rows = [{"prompt": f"q{n}", "completion": "a", "time": n} for n in range(10)]
        rows[3]["time"] = "last Tuesday"
        path = write_rows("a.jsonl", rows)
        with pytest.raises(DataError, match=r"a.jsonl:4: the time `time` is neither a time"):
            run(path, tmp_path / "out", time="time")
        assert not (tmp_path / "out").exists()
        settings = load(SplitSettings, {"time": "time", "fractions": {"train": 0.5, "test": 0.5}})
        report = split(sources_of([path], 0.2), tmp_path / "out", settings)
        assert report.rows == {"train": 4, "test": 5}
        (dropped,) = read_jsonl(tmp_path / "out" / "dropped.jsonl")
        assert (dropped["line"], dropped["kind"]) == (4, "no_time")


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"fractions": {"train": 1.0}}, "at least two parts"),
            ({"fractions": {"train": 0.8, "test": 0.1}}, "add up to 0.9"),
            ({"fractions": {"train": 0.8, "dropped": 0.2}}, "strop's own files"),
            ({"fractions": {"train": 0.8, "../x": 0.2}}, "should match pattern"),
            ({"by": "kind", "time": "time"}, "give one of the two"),
            ({"seed": 1, "time": "time"}, "`seed` draws nothing"),
        ],
    )
    def test_settings(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(RecipeError, match=message):
            load(SplitSettings, options)

    def test_what_cannot_be_split(self, write_rows: WriteRows, tmp_path: Path) -> None:
        path = write_rows("a.jsonl", planted())
        with pytest.raises(DataError, match="by is topic, and no record has that column"):
            run(path, tmp_path / "out", by="topic")
        with pytest.raises(UsageError, match="a split writes a file for each part"):
            run(path, tmp_path / "out.jsonl")
        few = write_rows("few.jsonl", [{"prompt": "a", "completion": "b"}] * 5)
        with pytest.raises(DataError, match="validation would be empty"):
            run(few, tmp_path / "out")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").touch()
        with pytest.raises(OutputError, match="something stands there"):
            split(sources_of([path]), tmp_path / "out", SplitSettings())


class TestCommand:
    def test_the_table_the_json_and_a_dry_run(self, write_rows: WriteRows, tmp_path: Path) -> None:
        path = write_rows("all.jsonl", planted())
        out = tmp_path / "out"
        args = ["data", "split", str(path), "--output", str(out), "--by", "kind"]
        found = json.loads(strop(*args, "--json", "--dry-run"))
        assert found["groups"] == 200
        assert found["output"] is None
        assert not out.exists()
        text = strop(*args)
        assert all(len(line) <= 100 for line in text.splitlines())
        assert "200 groups stay together; 80 prompts are near-duplicates" in text
        manifest = json.loads((out / "manifest.json").read_text())
        assert manifest["made_by"] == "strop data split"
        assert manifest["settings"]["by"] == "kind"
        assert {name: one["rows"] for name, one in manifest["files"].items()} == {
            f"{name}.jsonl": count for name, count in found["rows"].items()
        }
