"""Answers of a model as rows: who gave them stands beside them, nothing is asked twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from strop.curate.manifest import sources_of
from strop.curate.sample import SampleReport, sample
from strop.curate.underway import folder_of
from strop.errors import BudgetError, DataError, RecipeError, UsageError
from strop.model import load as loading
from strop.model.load import weights_hash
from strop.recipe.curate import SampleSettings
from strop.recipe.loading.load import load
from strop.types import Task
from tests.support.planned import ScriptedEngine, read_jsonl, strop
from tests.support.runs import Stop, WriteRows


def said(task: Task, number: int) -> str:
    return f"{task.prompt} answer {number}"


def drawn(path: Path, out: Path, engine: ScriptedEngine, **options: Any) -> SampleReport:
    settings = load(SampleSettings, {"model": "scripted", **options})
    return sample(sources_of([path]), out, settings, engine=engine, overwrite=True)


class TestRows:
    def test_a_row_for_each_answer(self, write_rows: WriteRows, tmp_path: Path) -> None:
        prompts = [
            {"prompt": "one", "answer": "5", "meta": {"trace_id": "t1"}},
            {"prompt": "two", "completion": "the old answer", "source": "x"},
        ]
        out = tmp_path / "out.jsonl"
        report = drawn(write_rows("a.jsonl", prompts), out, ScriptedEngine(said), samples=2)
        rows = read_jsonl(out)
        by = {"engine": {"scripted": "scripted"}, "finish": "stop"}
        assert rows == [
            {"prompt": "one", "completion": "one answer 0", "answer": "5",
             "meta": {"trace_id": "t1", **by, "sample": 0}},
            {"prompt": "one", "completion": "one answer 1", "answer": "5",
             "meta": {"trace_id": "t1", **by, "sample": 1}},
            {"prompt": "two", "completion": "two answer 0", "source": "x",
             "meta": {**by, "sample": 0}},
            {"prompt": "two", "completion": "two answer 1", "source": "x",
             "meta": {**by, "sample": 1}},
        ]  # fmt: skip
        assert report == SampleReport(prompts=2, rows=4, empty=0, truncated=0)

    def test_chat_is_answered_in_chat(self, write_rows: WriteRows, tmp_path: Path) -> None:
        chat = [{"role": "user", "content": "hi"}]
        turns = [*chat, {"role": "assistant", "content": "old"}]
        path = write_rows("a.jsonl", [{"prompt": chat}, {"messages": turns}])
        drawn(path, tmp_path / "out.jsonl", ScriptedEngine(lambda task, n: "hello"))
        for row in read_jsonl(tmp_path / "out.jsonl"):
            assert row["prompt"] == chat
            assert row["completion"] == [{"role": "assistant", "content": "hello"}]

    def test_empty_and_cut_answers(self, write_rows: WriteRows, tmp_path: Path) -> None:
        engine = ScriptedEngine(lambda task, number: (" ", "cut...", "whole")[number])
        path, out = write_rows("a.jsonl", [{"prompt": "q"}]), tmp_path / "out.jsonl"
        assert drawn(path, out, engine, samples=3) == SampleReport(1, 2, empty=1, truncated=1)
        assert [row["meta"]["finish"] for row in read_jsonl(out)] == ["length", "stop"]
        report = drawn(path, out, engine, samples=3, truncated="drop")
        assert report == SampleReport(1, 1, empty=1, truncated=1)
        kinds = [row["kind"] for row in read_jsonl(tmp_path / "out.dropped.jsonl")]
        assert kinds == ["empty", "truncated"]

    def test_texts_ask_nothing(self, write_rows: WriteRows, tmp_path: Path) -> None:
        path = write_rows("a.jsonl", [{"text": "once"}])
        with pytest.raises(DataError, match=r"a.jsonl:1: a text has no prompt"):
            drawn(path, tmp_path / "out.jsonl", ScriptedEngine(said))


class TestResume:
    def test_what_was_answered_is_not_asked_again(
        self, write_rows: WriteRows, tmp_path: Path
    ) -> None:
        path = write_rows("a.jsonl", [{"prompt": f"q{n}"} for n in range(600)])
        out = tmp_path / "out.jsonl"

        def dies(task: Task, number: int) -> str:
            if task.prompt == "q400":
                raise Stop
            return said(task, number)

        with pytest.raises(Stop):
            drawn(path, out, ScriptedEngine(dies))
        assert not out.exists()
        assert folder_of(out).is_dir()
        engine = ScriptedEngine(said)
        drawn(path, out, engine)
        assert len(engine.asked) == 600 - 256, "the first part is kept"
        assert [row["completion"] for row in read_jsonl(out)] == [
            f"q{n} answer 0" for n in range(600)
        ]
        assert not folder_of(out).exists()

    def test_parts_of_other_settings_are_not_taken_over(
        self, write_rows: WriteRows, tmp_path: Path
    ) -> None:
        path = write_rows("a.jsonl", [{"prompt": f"q{n}"} for n in range(300)])
        out = tmp_path / "out.jsonl"

        def dies(task: Task, number: int) -> str:
            if task.prompt == "q299":
                raise Stop
            return said(task, number)

        with pytest.raises(Stop):
            drawn(path, out, ScriptedEngine(dies))
        for engine, options in [
            (ScriptedEngine(said), {"seed": 1}),
            (ScriptedEngine(said, "another"), {}),
            (ScriptedEngine(said), {"sampling": {"temperature": 0.5}}),
        ]:
            with pytest.raises(Stop):
                drawn(path, out, ScriptedEngine(dies))
            drawn(path, out, engine, **options)
            assert len(engine.asked) == 300


class TestModel:
    def test_the_weights_are_hashed_once(
        self, write_rows: WriteRows, tmp_path: Path, model_folder: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        """Not for every answer: half a gigabyte takes a second. A file that was written to since
        is read again."""
        own = tmp_path / "model"
        shutil.copytree(model_folder, own)
        read: list[Path] = []
        whole = loading.sha256_of
        monkeypatch.setattr(loading, "sha256_of", lambda file: (read.append(file), whole(file))[1])
        path = write_rows("a.jsonl", [{"prompt": f"{n}x = 6"} for n in range(20)])
        before = weights_hash(own)
        strop("data", "sample", path, "--model", own, "--output", tmp_path / "out.jsonl",
              "--max-tokens", 2)  # fmt: skip
        assert len(read) == len(set(read)) <= 4
        config = own / "config.json"
        config.write_text(config.read_text().replace("0.02", "0.03"))
        assert weights_hash(own) != before
        assert read[-1] == config

    def test_a_model_folder(
        self, write_rows: WriteRows, tmp_path: Path, model_folder: Path
    ) -> None:
        path = write_rows("a.jsonl", [{"prompt": f"{n}x = 6"} for n in (2, 3, 2)])
        out = tmp_path / "out.jsonl"
        args = ["data", "sample", path, "--model", model_folder, "--output", out,
                "--max-tokens", 6, "--samples", 2]  # fmt: skip
        assert "would sample 2 answers to each of 3 prompts" in strop(*args, "--dry-run")
        assert not out.exists()
        report = json.loads(strop(*args, "--json"))
        rows = read_jsonl(out)
        assert report["prompts"] == 3
        engine = {"path": str(model_folder), "sha256": weights_hash(model_folder)}
        assert all(row["meta"]["engine"] == engine for row in rows)
        manifest = json.loads((tmp_path / "out.manifest.json").read_text())
        assert manifest["settings"]["engine"] == engine
        by_prompt = [[r["completion"] for r in rows if r["prompt"] == p]
                     for p in ("2x = 6", "3x = 6")]  # fmt: skip
        assert by_prompt[0][:2] == by_prompt[0][2:], "one prompt, one answer per number"
        before = rows
        strop(*args, "--overwrite")
        assert read_jsonl(out) == before
        strop(*args, "--overwrite", "--seed", 1)
        assert read_jsonl(out) != before

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"samples": 2, "sampling": {"temperature": 0}}, "at temperature 0 all 2 samples"),
            ({"requests": 5}, "`requests` is only read with `endpoint`"),
            ({"truncated": "cut"}, "'cut' is none of keep, drop"),
        ],
    )
    def test_settings(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(RecipeError, match=message):
            load(SampleSettings, {"model": "m", **options})

    def test_no_such_model(self, write_rows: WriteRows, tmp_path: Path) -> None:
        path = write_rows("a.jsonl", [{"prompt": "q"}])
        with pytest.raises(UsageError, match="no such model folder"):
            strop("data", "sample", path, "--model", "./nowhere", "--output", tmp_path / "o.jsonl")


def test_a_budget_ends_it_and_what_was_answered_is_kept(
    write_rows: WriteRows, tmp_path: Path, chat_server: Any
) -> None:
    path = write_rows("a.jsonl", [{"prompt": f"q{n}"} for n in range(6)])
    out = tmp_path / "out.jsonl"
    args = ["data", "sample", path, "--model", "m", "--endpoint", chat_server.url, "--output", out,
            "--at-once", 1]  # fmt: skip
    with pytest.raises(BudgetError, match="the budget of 4 requests is used up"):
        strop(*args, "--requests", 4)
    assert not out.exists()
    assert len(list((tmp_path / "out.cache").iterdir())) == 4
    strop(*args, "--requests", 2)
    assert len(chat_server.seen) == 6
    assert [row["completion"] for row in read_jsonl(out)] == [f"re: q{n}" for n in range(6)]
