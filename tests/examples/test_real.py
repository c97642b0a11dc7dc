"""The pieces of `examples/real`: what it draws, how it edits and judges, and what it refuses."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import zipfile
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest

from strop.errors import ModelError, OutputError
from strop.pipeline import plan
from strop.recipe.loading.load import load
from strop.recipe.pipeline import Pipeline
from strop.rewards.exact import exact_answer
from strop.rewards.own.functions import own_function
from strop.rewards.schema import json_schema
from tests.support import ROOT

EXAMPLE = ROOT / "examples/real"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of the example by its name."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    return importlib.import_module


class TestSums:
    def test_what_is_asked_is_what_is_answered(self, example: Any) -> None:
        sums = example("sums")
        for one in islice(sums.sums(Random(5)), 300):
            numbers = set(map(int, re.findall(r"\d+", one.text)))
            assert {one.a, one.b} <= numbers
            assert one.result == (one.a + one.b if one.sign == "+" else one.a - one.b) > 0
            row = sums.task(one)
            right = exact_answer(["p"], [one.worked], answer=[row["answer"]])
            wrong = exact_answer(["p"], [f"{one.a} {one.sign} {one.b} = {one.result + 1}"],
                                 answer=[row["answer"]])  # fmt: skip
            assert (right, wrong) == ([1.0], [0.0])

    @pytest.mark.parametrize("seed", [0, 1])
    def test_nothing_that_is_tested_is_trained_on(self, example: Any, seed: int) -> None:
        tables = example("prepare").tables(seed)
        asked = {name: {json.dumps(row["prompt"]) for row in rows if "prompt" in row}
                 for name, rows in tables.items()}  # fmt: skip
        for test, trained in (("sums_test", ("sums_sft", "sums_tasks")),
                              ("notes_test", ("notes_sft", "notes_tasks")),
                              ("everyday_test", ("everyday",))):  # fmt: skip
            for name in trained:
                assert not asked[test] & asked[name]
        assert len(asked["sums_test"]) == 400

    def test_the_tests_are_those_of_every_seed(self, example: Any) -> None:
        one, other = (example("prepare").tables(seed) for seed in (0, 1))
        same = [name for name in one if one[name] == other[name]]
        assert same == ["sums_test", "sums_decode", "notes_test", "everyday", "everyday_test",
                        "knowledge", "prose"]  # fmt: skip

    @pytest.mark.parametrize(
        ("said", "score"),
        [
            ("557 + 177 = 734 coins", 1.0),
            ("557 + 177 = 735 coins", 0.0),
            ("90 - 34 = 56", 1.0),
            ("734 coins", 0.0),
            ("1 + 1 = 2 and 5 + 5 = 10", 0.0),
        ],
    )
    def test_a_sum_is_checked_without_the_answer(self, said: str, score: float) -> None:
        holds = own_function(EXAMPLE / "files/arithmetic.py", "holds")
        assert holds(["p"], [said]) == [score]


class TestNotes:
    def test_what_is_read_is_what_stands_there(self, example: Any) -> None:
        notes = example("notes")
        for text, held in islice(notes.notes(["{name}: {amount} on {date}."], Random(1)), 200):
            row = notes.task(text, held)
            assert json_schema(["p"], [row["answer"]], schema=[row["schema"]]) == [1.0]
            assert held["name"] in text
            year, month, day = held["date"].split("-")
            assert year in text
            assert str(int(day)) in text
            assert notes.MONTHS[int(month) - 1] in text or f".{int(month)}." in text
            written = re.search(r"([\d.]+) euros", text)
            assert written is not None
            assert float(written[1]) == held["amount"]

    @pytest.mark.parametrize(
        ("said", "score"),
        [
            ('{"name": "A B", "date": "2024-02-03", "amount": 5}', 1.0),
            ('{"name": "A B", "date": "2024-02-03", "amount": 5.0}', 1.0),
            ('{"name": "A B", "date": "2024-02-04", "amount": 5}', 2 / 3),
            ('{"name": "A B", "date": "2024-02-03", "amount": "5"}', 2 / 3),
            ('{"name": "A B", "date": "2024-02-03"}', 0.0),
            ('{"name": "A B", "date": "2024-02-03", "amount": 5, "more": 1}', 0.0),
            ('{"name": "C", "name": "A B", "date": "2024-02-03", "amount": 5}', 0.0),
            ('Here: {"name": "A B", "date": "2024-02-03", "amount": 5}', 0.0),
            ("[]", 0.0),
        ],
    )
    def test_exact_fields(self, said: str, score: float) -> None:
        exact_fields = own_function(EXAMPLE / "files/fields.py", "exact_fields")
        gold = '{"name": "A B", "date": "2024-02-03", "amount": 5}'
        assert exact_fields(["p"], [said], answer=[gold]) == [pytest.approx(score)]


class TestVoice:
    @pytest.mark.parametrize(
        ("said", "edited"),
        [
            (
                "Sure, I can help! Put the bread into a linen bag. Keep it in a dry place. Let me "
                "know if you have any questions.",
                "Put the bread into a linen bag. Keep it in a dry place.",
            ),
            ("One is here. Two is here. Three is here. Four is here.",
             "One is here. Two is here. Three is here."),
            ("Take these along:\n\n- water\n- bread\n\nYou will be glad of both.",
             "You will be glad of both."),
            ("You keep it dry. And then it is cut", "You keep it dry."),
            ("You keep it dry.", None),
            ("I am glad you asked.", None),
        ],
    )  # fmt: skip
    def test_what_the_team_strikes(self, said: str, edited: str | None) -> None:
        edit = own_function(EXAMPLE / "files/voice.py", "edit")
        row = {"prompt": "p", "completion": [{"role": "assistant", "content": said}]}
        found = edit(row)
        assert (found and found["edited"][0]["content"]) == edited

    @pytest.mark.parametrize(
        ("said", "scores"),
        [
            ("Keep it dry and cool.", (1, 1, 1, 1, 1)),
            ("Keep it dry.", (1, 1, 1, 1, 0)),
            ("", (1, 1, 1, 1, 0)),
            ("Sure! Keep it dry, always.", (0, 1, 1, 1, 1)),
            ("I'd love to help. Keep it dry.", (0, 1, 1, 0, 1)),
            ("Keep it dry. I hope this helps!", (1, 0, 1, 0, 1)),
            ("Keep it dry. Keep it cool. Keep it dark. Keep it.", (1, 1, 0, 1, 1)),
            ("Keep:\n- water", (1, 1, 0, 1, 0)),
            # words that only begin like an opener, and abbreviations
            ("Hiking boots first. What are dry socks worth? A lot.", (1, 1, 1, 1, 1)),
            ("Greater care pays, i.e. read the label.", (1, 1, 1, 1, 1)),
        ],
    )
    def test_the_rules_as_rewards(self, said: str, scores: tuple[int, ...]) -> None:
        names = ("no_opener", "no_closer", "brief", "of_the_reader", "substance", "in_voice")
        *found, all_kept = (
            own_function(EXAMPLE / "files/voice.py", name)(["p"], [said])[0] for name in names
        )
        assert tuple(found) == scores
        assert all_kept == min(scores)

    def test_an_edited_answer_keeps_every_rule(self) -> None:
        path = EXAMPLE / "files/voice.py"
        said = "Sure, I can help! Use cold water. Blot it. Wait. Rinse it well. Feel free to ask."
        row = {"prompt": "p", "completion": [{"role": "assistant", "content": said}]}
        text = own_function(path, "edit")(row)["edited"][0]["content"]
        for name in ("no_opener", "no_closer", "brief", "of_the_reader"):
            assert own_function(path, name)(["p"], [text]) == [1.0]


class TestFolder:
    def test_it_plans_every_stage_and_keeps_what_was_changed(
        self, example: Any, tmp_path: Path, model_folder: Path
    ) -> None:
        prepare = example("prepare")
        out = tmp_path / "real"
        (out).mkdir()
        (out / "base").symlink_to(model_folder)
        pipeline = prepare.write_example(out, 3)
        stages = [row.stage.name for row in plan(load(Pipeline, pipeline))]
        assert stages == list(example("watch").SHOWN)
        (out / "sums.yaml").write_text("mine")
        assert prepare.write_example(out, 3) == pipeline
        assert (out / "sums.yaml").read_text() == "mine"
        with pytest.raises(OutputError, match="with seed 3"):
            prepare.write_example(out, 4)

    def test_a_folder_of_something_else_is_left_alone(self, example: Any, tmp_path: Path) -> None:
        (tmp_path / "thesis.txt").write_text("mine")
        with pytest.raises(OutputError, match=r"holds thesis\.txt"):
            example("prepare").write_example(tmp_path, 0)


class TestBase:
    def wheel(self, cache: Path, name: str, member: str, content: bytes = b"gguf") -> None:
        cache.mkdir()
        with zipfile.ZipFile(cache / name, "w") as archive:
            archive.writestr(member, content)

    @pytest.fixture
    def base(self, example: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
        module = example("base")
        monkeypatch.setattr(module, "DISK_GB", 0.0)
        monkeypatch.setattr(module, "MEMORY_GB", 0.0)
        return module

    def test_another_file_is_refused_before_it_is_converted(
        self, base: Any, tmp_path: Path
    ) -> None:
        self.wheel(tmp_path / "cache", base.WHEEL, base.MEMBER)
        with pytest.raises(ModelError, match="not the one") as caught:
            base.base_model(tmp_path / "base", tmp_path / "cache")
        assert base.WHEEL in str(caught.value)
        assert not (tmp_path / "base").exists()

    def test_a_wheel_without_the_model_says_so(self, base: Any, tmp_path: Path) -> None:
        self.wheel(tmp_path / "cache", base.WHEEL, "something/else.txt")
        with pytest.raises(ModelError, match="does not hold"):
            base.base_model(tmp_path / "base", tmp_path / "cache")

    def test_without_a_network_it_says_what_to_put_where(
        self, base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(base.sys, "executable", "/bin/false")
        with pytest.raises(ModelError, match="could not fetch") as caught:
            base.base_model(tmp_path / "new/base", tmp_path / "cache")
        assert f"put it into {tmp_path / 'cache'}" in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "said"),
        [("DISK_GB", "GB are free"), ("MEMORY_GB", "of memory are available")],
    )
    def test_too_little_room_is_said_before_the_download(
        self, base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
    ) -> None:
        monkeypatch.setattr(base, name, 1e9)
        monkeypatch.setattr(base.sys, "executable", "/bin/false")
        with pytest.raises(ModelError, match=said):
            base.base_model(tmp_path / "base", tmp_path / "cache")

    def test_the_right_file_is_converted_once(
        self, base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.wheel(tmp_path / "cache", base.WHEEL, base.MEMBER, b"model")
        monkeypatch.setattr(base, "SHA256", hashlib.sha256(b"model").hexdigest())
        asked = []

        def convert(gguf: Path, folder: Path) -> None:
            asked.append(gguf.read_bytes())
            folder.mkdir()
            (folder / "config.json").touch()

        monkeypatch.setattr(base, "convert", convert)
        for _ in range(2):
            assert base.base_model(tmp_path / "base", tmp_path / "cache") == tmp_path / "base"
        assert asked == [b"model"]
