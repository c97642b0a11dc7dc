"""Bad rows in training data: left out and told up to a share, refused with everything above it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from strop.errors import DataError, RecipeError
from strop.recipe.loading.load import load_recipe
from strop.train.preflight.prepare import prepare
from strop.train.run import train
from tests.support.runs import final_weights as weights_of
from tests.support.runs import metrics, same, write_jsonl


def good(number: int) -> dict[str, Any]:
    return {"prompt": f"{number}x = 6", "chosen": f"x = {number}", "rejected": "Sure!"}


def recipe(recipes: dict[str, Path], data: Any, *more: str) -> Any:
    options = [f"data={json.dumps(data)}", "run.steps=2", "output=dirty", *more]
    return load_recipe(recipes["dpo"], options)


def prepared(loaded: Any) -> Any:
    return prepare(loaded, resume=False, overwrite=True, force=True)


@pytest.fixture
def dirty(tmp_path: Path) -> Path:
    """200 pairs of which three are bad, on lines 5, 7 and 9, each in its own way."""
    lines = [json.dumps(good(n)) for n in range(200)]
    lines[4] = json.dumps({**good(4), "rejected": "x = 4"})
    lines[6] = "{broken"
    lines[8] = json.dumps({**good(8), "chosen": " "})
    path = tmp_path / "dirty.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


class TestBelowTheShare:
    def test_the_run_is_that_of_the_clean_rows(
        self, recipes: dict[str, Path], dirty: Path, tmp_path: Path
    ) -> None:
        rows = [good(n) for n in range(200) if n not in (4, 6, 8)]
        clean = write_jsonl(tmp_path / "clean.jsonl", rows)
        source = {"path": str(dirty), "max_bad": 0.02}
        left = train(recipe(recipes, source), force=True).parent
        right = train(recipe(recipes, str(clean), "output=clean"), force=True).parent
        assert same(weights_of(left), weights_of(right))
        assert metrics(left) == metrics(right)
        dropped = [json.loads(line) for line in (left / "dropped.jsonl").read_text().splitlines()]
        assert [(row["line"], row["kind"]) for row in dropped] == [
            (5, "chosen_equals_rejected"), (7, "broken_json"), (9, "empty"),
        ]  # fmt: skip
        assert {row["file"] for row in dropped} == {str(dirty)}
        assert dropped[2]["reason"] == "`chosen` is empty"
        assert not (right / "dropped.jsonl").exists()

    def test_what_was_read_is_said_in_a_line(self, recipes: dict[str, Path], dirty: Path) -> None:
        report, *_ = prepared(recipe(recipes, {"path": str(dirty), "max_bad": 0.02})).sources
        assert report.line() == (
            f"{dirty}: preference, 197 rows of prompt, chosen, rejected; left out "
            f"1 chosen_equals_rejected ({dirty}:5), 1 broken_json ({dirty}:7), 1 empty ({dirty}:9)"
        )

    def test_one_per_cent_is_what_a_recipe_allows_unless_it_says(
        self, recipes: dict[str, Path], dirty: Path, tmp_path: Path
    ) -> None:
        two = tmp_path / "two.jsonl"
        more = [json.dumps(good(n)) + "\n" for n in range(200, 205)]
        two.write_text("".join([*dirty.read_text().splitlines(keepends=True)[5:], *more]))
        assert len(prepared(recipe(recipes, str(two))).rendered.trees) == 198
        with pytest.raises(DataError, match=r"3 of 200 rows \(1\.50%\) cannot be used"):
            prepared(recipe(recipes, str(dirty)))

    def test_a_row_that_no_template_can_render(
        self, recipes: dict[str, Path], tmp_path: Path
    ) -> None:
        rows: list[dict[str, Any]] = [good(n) for n in range(120)]
        call = {"type": "function", "function": {"name": "solve", "arguments": {}}}
        rows[50]["prompt"] = [
            {"role": "user", "content": "2x = 6"},
            {"role": "assistant", "content": "Let me see.", "tool_calls": [call]},
            {"role": "user", "content": "Well?"},
        ]
        path = write_jsonl(tmp_path / "roles.jsonl", rows)
        report, *_ = prepared(recipe(recipes, str(path))).sources
        assert [(row.kind, row.origin.line) for row in report.dropped] == [("unrenderable", 51)]


class TestAboveTheShare:
    def test_every_kind_its_count_and_its_first_three_lines(
        self, recipes: dict[str, Path], tmp_path: Path
    ) -> None:
        rows = [good(n) for n in range(20)]
        for place in (2, 3, 5, 7):
            rows[place]["rejected"] = rows[place]["chosen"]
        rows[11]["chosen"] = ""
        path = write_jsonl(tmp_path / "bad.jsonl", rows)
        with pytest.raises(DataError) as caught:
            prepared(recipe(recipes, str(path)))
        same_as = "chosen equals rejected, so the pair says nothing"
        assert str(caught.value).splitlines()[:7] == [
            f"{path}: 5 of 20 rows (25.00%) cannot be used, and max_bad allows 1.00%:",
            "  4 chosen_equals_rejected",
            *(f"    {path}:{line}: {same_as}" for line in (3, 4, 6)),
            "  1 empty",
            f"    {path}:12: `chosen` is empty",
        ]
        assert "raise `max_bad` of this source" in str(caught.value)
        assert not (tmp_path / "dirty").exists()

    def test_nothing_is_left(self, recipes: dict[str, Path], tmp_path: Path) -> None:
        path = write_jsonl(tmp_path / "bad.jsonl", [{**good(1), "chosen": ""}])
        with pytest.raises(DataError, match=r"not one of its 1 rows can be used"):
            prepared(recipe(recipes, {"path": str(path), "max_bad": 1.0}))

    def test_held_out_data_is_not_thinned_in_silence(
        self, recipes: dict[str, Path], dirty: Path, tmp_path: Path
    ) -> None:
        clean = write_jsonl(tmp_path / "clean.jsonl", [good(n) for n in range(9)])
        with pytest.raises(DataError, match=r"max_bad allows 0\.00%"):
            prepared(recipe(recipes, str(clean), f"eval.data={dirty}"))


class TestSources:
    def test_columns_limit_and_seed(self, recipes: dict[str, Path], tmp_path: Path) -> None:
        rows = [
            {"question": f"{n}x = 6", "good": f"x = {n}", "bad": "Sure!", "n": n} for n in range(40)
        ]
        path = write_jsonl(tmp_path / "named.jsonl", rows)
        columns = {"prompt": "question", "chosen": "good", "rejected": "bad"}
        source = {"path": str(path), "columns": columns, "limit": 10}

        def drawn(**more: Any) -> list[int]:
            found = prepared(recipe(recipes, {**source, **more}))
            return [record.columns["n"] for record in found.rendered.records]

        assert drawn() == list(range(10))
        some, others = drawn(shuffle_seed=0), drawn(shuffle_seed=1)
        assert some == drawn(shuffle_seed=0) == sorted(some)
        assert len(set(some)) == 10
        assert some != others != list(range(10))
        with pytest.raises(DataError, match=r"`columns` names `answer`, but the row has"):
            drawn(columns={**columns, "chosen": "answer"})

    def test_a_data_set_that_datasets_loads(
        self, recipes: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
        hub = tmp_path / "org" / "pairs"
        hub.mkdir(parents=True)
        write_jsonl(hub / "train.jsonl", [good(n) for n in range(12)])
        write_jsonl(hub / "test.jsonl", [good(n) for n in range(100, 105)])
        loaded = recipe(recipes, {"hub": str(hub), "split": "test"})
        found = prepared(loaded)
        assert [r.prompt for r in found.rendered.records] == [f"{n}x = 6" for n in range(100, 105)]
        assert len(prepared(recipe(recipes, {"hub": str(hub)})).rendered.trees) == 12
        run = train(loaded, force=True).parent
        (kept,) = json.loads((run / "lineage.json").read_text())["data"]
        assert (kept["path"], len(kept["sha256"])) == (f"hub:{hub}", 16)
        assert kept["read"] == {"hub": str(hub), "split": "test"}
        with pytest.raises(DataError, match="cannot load split 'nowhere'"):
            prepared(recipe(recipes, {"hub": str(hub), "split": "nowhere"}))

    @pytest.mark.parametrize(
        ("source", "said"),
        [
            ({"path": "a.jsonl", "hub": "a/b"}, "give `path`"),
            ({"limit": 3}, "give `path`"),
            ({"path": "a.jsonl", "split": "test"}, "split belongs to `hub`"),
            ({"path": "a.jsonl", "shuffle_seed": 1}, "set `limit`"),
            ({"path": "a.jsonl", "max_bad": 1.5}, "max_bad"),
        ],
    )
    def test_what_contradicts_itself(
        self, recipes: dict[str, Path], source: dict[str, Any], said: str
    ) -> None:
        with pytest.raises(RecipeError, match=said):
            recipe(recipes, source)
