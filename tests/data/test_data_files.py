"""Files and folders as users have them: splits, patterns, packed files, CSV, JSON lines."""

from __future__ import annotations

import gzip
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from datasets import Dataset, DatasetDict

from strop.data.records import demonstration, feedback, task
from strop.data.sources import at, data_hash, read, rows
from strop.errors import DataError
from strop.recipe.loading.load import load_recipe
from strop.train.preflight.prepare import prepare
from tests.support.runs import WriteRows

ROWS = [{"prompt": "2x = 6", "completion": "3"}, {"prompt": "x + 1 = 2", "completion": "1"}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def parquet(path: Path, prompts: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    listed = [{"prompt": prompt, "completion": "c"} for prompt in prompts]
    pyarrow.parquet.write_table(pa.Table.from_pylist(listed), path)


def prompts(path: Path, **options: Any) -> list[Any]:
    return [record.prompt for record in read([at(path)], demonstration, **options)]


def silent(path: Path, **options: Any) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return prompts(path, **options)


class TestSplits:
    SHARDS = ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001")

    def split(self, folder: Path, names: Sequence[str] = SHARDS) -> Path:
        for name in names:
            parquet(folder / f"{name}.parquet", [name])
        return folder

    def test_train_is_read_and_that_is_said(self, tmp_path: Path) -> None:
        folder = self.split(tmp_path / "d")
        with pytest.warns(UserWarning, match=r"d: reading the split train, not test"):
            assert prompts(folder) == list(self.SHARDS[:2])
        only = self.split(tmp_path / "only", self.SHARDS[:2])
        assert data_hash([folder]) == data_hash([only])  # what is not read is no input

    def test_what_is_measured_on_is_never_guessed(self, tmp_path: Path) -> None:
        folder = self.split(tmp_path / "d")
        with pytest.raises(
            DataError, match="holds test, train, and it is not clear which"
        ) as caught:
            prompts(folder, held_out=True)
        assert f"for example {folder / 'test-*.parquet'}" in str(caught.value)
        assert silent(folder / "test-*.parquet", held_out=True) == [self.SHARDS[2]]

    def test_a_pattern_is_all_it_matches_in_order(self, tmp_path: Path) -> None:
        folder = self.split(tmp_path / "d")
        assert silent(folder / "*.parquet") == sorted(self.SHARDS)
        assert data_hash([folder / "train-*"]) == data_hash([folder])
        with pytest.raises(DataError, match="no such file or folder"):
            prompts(folder / "dev-*")

    @pytest.mark.parametrize(
        "names",
        [
            ("train", "test", "model_solutions"),  # the last may be either
            ("test", "validation"),
            ("test", "pairs"),
            ("train-a", "train-b", "test"),
            ("train_sft-00000-of-00001", "train_prefs-00000-of-00001"),
            ("en-00000-of-00001", "de-00000-of-00001"),
        ],
    )
    def test_what_is_unclear_is_refused(self, tmp_path: Path, names: Sequence[str]) -> None:
        folder = self.split(tmp_path / "d", names)
        with pytest.raises(DataError, match="it is not clear which to read") as caught:
            prompts(folder)
        assert caught.value.where == str(folder)

    @pytest.mark.parametrize(
        ("names", "read"),
        [
            (("a", "b"), ("a", "b")),
            (("train", "more"), ("more", "train")),  # nothing says that one was held back
            (("test-00000-of-00002", "test-00001-of-00002"),) * 2,
            (("test_1", "test_2"),) * 2,
            (("latest", "pretrained"),) * 2,  # words are not looked for inside words
            (("pairs",),) * 2,
        ],
    )
    def test_what_is_one_set_is_read_whole(
        self, tmp_path: Path, names: Sequence[str], read: Sequence[str]
    ) -> None:
        folder = self.split(tmp_path / "d", names)
        assert silent(folder) == list(read)
        assert silent(folder, held_out=True) == list(read)

    @pytest.mark.parametrize(
        "names", [("train", "validation"), ("train_1", "train_2", "dev"), ("my-train", "my-eval")]
    )
    def test_names_as_people_write_them(self, tmp_path: Path, names: Sequence[str]) -> None:
        folder = self.split(tmp_path / "d", names)
        with pytest.warns(UserWarning, match="reading the split"):
            assert prompts(folder) == [name for name in names if "train" in name]

    def test_a_saved_dataset_dict(self, tmp_path: Path) -> None:
        parts = {
            name: Dataset.from_list([{**ROWS[0], "prompt": name}]) for name in ("train", "test")
        }
        DatasetDict(parts).save_to_disk(str(tmp_path / "d"))
        with pytest.warns(UserWarning, match="d: reading the split train, not test"):
            assert prompts(tmp_path / "d") == ["train"]
        assert silent(tmp_path / "d" / "test", held_out=True) == ["test"]
        with pytest.raises(DataError, match="to measure on"):
            prompts(tmp_path / "d", held_out=True)
        other = DatasetDict({"helpful": parts["train"], "harmless": parts["test"]})
        other.save_to_disk(str(tmp_path / "e"))
        with pytest.raises(DataError, match="harmless, helpful, and it is not clear"):
            prompts(tmp_path / "e")
        DatasetDict({"test": parts["test"]}).save_to_disk(str(tmp_path / "f"))
        assert silent(tmp_path / "f") == ["test"]

    def test_a_repository_of_a_data_set(self, tmp_path: Path) -> None:
        """Its description beside it, its files a folder below."""
        (tmp_path / "dataset_infos.json").write_text('{"default": {"splits": {}}}')
        (tmp_path / "README.md").write_text("# data")
        self.split(tmp_path / "data")
        with pytest.warns(UserWarning, match="reading the split train"):
            assert prompts(tmp_path) == list(self.SHARDS[:2])

    def test_metadata_and_hidden_files_are_no_data(self, tmp_path: Path) -> None:
        self.split(tmp_path, ["a"])
        for name in ("dataset_info.json", "dataset_infos.json", "metadata.json", "._a.parquet"):
            (tmp_path / name).write_text('{"about": "the data"}')
        assert silent(tmp_path) == ["a"]

    def test_folders_of_configurations_are_named(self, tmp_path: Path) -> None:
        for name in ("main", "socratic"):
            self.split(tmp_path / name)
        with pytest.raises(DataError, match="main, socratic, and it is not clear") as caught:
            prompts(tmp_path)
        assert str(tmp_path / "main") in str(caught.value)

    def test_one_set_in_two_forms_is_not_read_twice(self, tmp_path: Path) -> None:
        self.split(tmp_path, ["a"])
        (tmp_path / "a.jsonl").write_text(LINES)
        with pytest.raises(DataError, match=r"a.jsonl and a.parquet have one name"):
            prompts(tmp_path)

    def test_held_out_rows_of_a_run_and_of_a_suite(
        self, tmp_path: Path, recipes: dict[str, Path]
    ) -> None:
        for name in ("train", "test"):
            (tmp_path / "d").mkdir(exist_ok=True)
            (tmp_path / "d" / f"{name}.jsonl").write_text((tmp_path / "sft.jsonl").read_text())
        recipe = load_recipe(recipes["sft"], ["data=d", "eval.data=d/test.jsonl"])
        with pytest.warns(UserWarning, match="reading the split train, not test"):
            prepared = prepare(recipe, resume=False, overwrite=False, force=False)
        assert prepared.checks["records"] == len((tmp_path / "sft.jsonl").read_text().splitlines())
        recipe = load_recipe(recipes["sft"], ["data=d/train.jsonl", "eval.data=d"])
        with pytest.raises(DataError, match="to measure on"):
            prepare(recipe, resume=False, overwrite=False, force=False)


class TestJson:
    def test_json_lines_under_the_name_of_json(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text("\n" + LINES)
        records = read([at(tmp_path / "a.json")], demonstration)
        assert [(r.prompt, r.origin.line) for r in records] == [("2x = 6", 2), ("x + 1 = 2", 3)]
        (tmp_path / "a.json").write_text(LINES + "{")
        with pytest.raises(DataError, match=r"a\.json:3: broken JSON"):
            prompts(tmp_path / "a.json")

    @pytest.mark.parametrize(
        "row",
        [
            {"prompt": "a", "completion": "b"},
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        ],
    )
    def test_a_single_line(self, tmp_path: Path, row: Any) -> None:
        (tmp_path / "a.json").write_text(json.dumps(row))
        (record,) = read([at(tmp_path / "a.json")], demonstration)
        assert record.prompt in ("a", [{"role": "user", "content": "a"}])

    @pytest.mark.parametrize(
        "whole",
        [
            {"data": ROWS},
            {"prompt": ["a", "b"], "completion": ["c", "d"]},
            {"prompt": {"0": "a"}, "completion": {"0": "c"}},
        ],
    )
    def test_an_object_that_holds_records(self, tmp_path: Path, whole: Any) -> None:
        for indent in (None, 1):
            (tmp_path / "a.json").write_text(json.dumps(whole, indent=indent))
            with pytest.raises(DataError, match="expected a JSON array of objects") as caught:
                prompts(tmp_path / "a.json")
        assert ("take out what is under `data`" in str(caught.value)) == ("data" in whole)

    @pytest.mark.parametrize("whole", ['"text"', "1.5", "null", "{}"])
    def test_what_holds_no_records(self, tmp_path: Path, whole: str) -> None:
        (tmp_path / "a.json").write_text(whole)
        with pytest.raises(DataError, match="expected a JSON array of objects"):
            prompts(tmp_path / "a.json")

    def test_an_array_in_a_jsonl_is_told_where_it_belongs(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text(json.dumps(ROWS))
        with pytest.raises(DataError, match=r"a\.jsonl:1: [\s\S]*array belongs into a \.json file"):
            prompts(tmp_path / "a.jsonl")


class TestPacked:
    @pytest.mark.parametrize("name", ["a.jsonl", "a.json", "b.json", "a.csv"])
    @pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
    def test_gzip_and_zstd(self, tmp_path: Path, name: str, packed: str) -> None:
        text = {"a.jsonl": LINES, "a.json": LINES, "b.json": json.dumps(ROWS, indent=1),
                "a.csv": "prompt,completion\n2x = 6,3\nx + 1 = 2,1\n"}[name]  # fmt: skip
        path = tmp_path / (name + packed)
        path.write_bytes(self.packed(text.encode(), packed))
        assert prompts(path) == ["2x = 6", "x + 1 = 2"]

    def packed(self, data: bytes, how: str) -> bytes:
        if how == ".zst":
            return bytes(pa.compress(data, codec="zstd", asbytes=True))
        return gzip.compress(data) if how else data

    def test_frames_end_to_end_are_one_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl.zst").write_bytes(2 * self.packed(LINES.encode(), ".zst"))
        assert len(prompts(tmp_path / "a.jsonl.zst")) == 4

    @pytest.mark.parametrize("cut", [3, -4])
    def test_one_that_is_cut_short(self, tmp_path: Path, cut: int) -> None:
        for how in (".gz", ".zst"):
            path = tmp_path / f"a.jsonl{how}"
            path.write_bytes(self.packed(1000 * LINES.encode(), how)[:cut])
            with pytest.raises(DataError, match=f"a.jsonl{how}: cannot read the file"):
                prompts(path)


class TestCsv:
    def read(self, folder: Path, text: str) -> list[dict[str, Any]]:
        (folder / "a.csv").write_text(text)
        return [dict(row) for row, _ in rows(folder / "a.csv")]

    def test_cells_are_texts_and_lines_are_those_of_the_file(self, tmp_path: Path) -> None:
        text = '\ufeffprompt,answer,note\n"one, ""two""\nthree",007,\n\nfour,1e5,x\n'
        (tmp_path / "a.csv").write_text(text)
        records = read([at(tmp_path / "a.csv")], task)
        assert [(r.prompt, dict(r.columns), r.origin.line) for r in records] == [
            ('one, "two"\nthree', {"answer": "007", "note": ""}, 2),
            ("four", {"answer": "1e5", "note": "x"}, 5),
        ]

    def test_labels_and_an_index_without_a_name(self, tmp_path: Path) -> None:
        text = ",prompt,completion,label\n0,p,a,True\n1,p,b,false\n"
        self.read(tmp_path, text)
        assert [r.label for r in read([at(tmp_path / "a.csv")], feedback)] == [True, False]
        assert self.read(tmp_path, text)[0].keys() == {"prompt", "completion", "label"}
        (tmp_path / "a.csv").write_text("prompt,completion,label\np,a,0.5\n")
        with pytest.raises(DataError, match=r"a\.csv:2: `label` is 0.5"):
            read([at(tmp_path / "a.csv")], feedback)

    def test_conversations_and_tools_as_json_text(self, tmp_path: Path) -> None:
        turns = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
        tools = [{"name": "f", "parameters": {}}]
        cells = (json.dumps(value).replace('"', '""') for value in (turns, tools))
        (tmp_path / "a.csv").write_text('messages,tools\n"{}","{}"\n'.format(*cells))
        (record,) = read([at(tmp_path / "a.csv")], demonstration)
        assert (record.prompt, record.completion) == (turns[:1], turns[1:])
        assert record.columns["tools"] == tools

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("prompt,completion\na,b\nc\n", r"a\.csv:3: the row has 1 cells, the header 2"),
            ("prompt,completion\na,b,c\n", r"a\.csv:2: the row has 3 cells, the header 2"),
            ("prompt,prompt\na,b\n", r"a\.csv:1: two columns are named 'prompt'"),
            ("prompt;completion\na;b\n", r"a\.csv:1: the columns are not separated by commas"),
            ('prompt,completion\n"a"b,c\n', r"a\.csv:2: broken CSV"),
            ('prompt,completion\n"[{""role"": ""user""}]",c\n', r"a\.csv:2: .*`prompt` holds mess"),
            ("prompt,completion\n,c\n", r"a\.csv:2: `prompt` is empty"),
        ],
    )
    def test_what_is_wrong_is_said_by_line(self, tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(DataError, match=message):
            prompts(tmp_path / "a.csv")

    def test_a_long_cell(self, tmp_path: Path) -> None:
        (row,) = self.read(tmp_path, f"prompt\n{'x' * 200_000}\n")
        assert len(row["prompt"]) == 200_000


def test_a_pipeline_takes_a_pattern(tmp_path: Path, write_rows: WriteRows) -> None:
    from strop.recipe.loading.paths import is_there

    write_rows("a-1.jsonl", ROWS)
    assert is_there(str(tmp_path / "a-*.jsonl"))
    assert not is_there(str(tmp_path / "b-*.jsonl"))
