"""Bands of tasks by pass rates that are known, because the engine is scripted."""

from __future__ import annotations

import json
import math
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.curate.difficulty.band import BandReport, PassRate, band
from strop.curate.manifest import sources_of
from strop.curate.underway import folder_of
from strop.errors import DataError, RecipeError, UnscoredError, UsageError
from strop.recipe.curate import BandSettings
from strop.recipe.loading.load import load
from strop.types import Task
from tests.support.planned import ScriptedEngine, read_jsonl, strop
from tests.support.runs import Stop, WriteRows

RIGHT = {"q0": 0, "q1": 1, "q2": 2, "q3": 4, "q4": 6, "q5": 7, "q6": 8}
"""How many of eight answers to each task are right."""


def solves(task: Task, number: int) -> str:
    """The first so many answers of a task are right."""
    right = RIGHT[str(task.prompt)]
    return f"<answer>{task.columns['answer'] if number < right else 'no'}</answer>"


def tasks() -> list[dict[str, Any]]:
    return [{"prompt": name, "answer": str(10 + n)} for n, name in enumerate(RIGHT)]


def banded(path: Path, out: Path, engine: ScriptedEngine, **options: Any) -> BandReport:
    given = {"model": "m", "reward": [{"function": "exact_answer"}], **options}
    settings = load(BandSettings, given)
    return band(sources_of([path]), out, settings, engine=engine, overwrite=True)


LENGTH = {"function": "length", "weight": 5.0, "options": {"least": 0, "most": 99}}


class TestBands:
    def test_rows_get_their_rate_and_band(self, write_rows: WriteRows, tmp_path: Path) -> None:
        out = tmp_path / "out.jsonl"
        report = banded(write_rows("t.jsonl", tasks()), out, ScriptedEngine(solves))
        assert read_jsonl(out) == [
            {"prompt": name, "answer": str(10 + n), "pass_rate": RIGHT[name] / 8,
             "pass_samples": 8, "band": where}
            for n, name, where in [(1, "q1", "hard"), (2, "q2", "medium"), (3, "q3", "medium"),
                                   (4, "q4", "medium"), (5, "q5", "easy")]
        ]  # fmt: skip
        dropped = read_jsonl(tmp_path / "out.dropped.jsonl")
        assert [(d["kind"], d["line"], d["reason"], d["row"]["pass_rate"]) for d in dropped] == [
            ("never", 1, "0 of 8 answers passed", 0.0),
            ("always", 7, "8 of 8 answers passed", 1.0),
        ]
        assert report.bands == {"never": 1, "hard": 1, "medium": 3, "easy": 1, "always": 1}
        assert (report.tasks, report.kept, report.unscored) == (7, 5, 0)

    def test_limits_belong_to_medium_and_bands_can_be_chosen(
        self, write_rows: WriteRows, tmp_path: Path
    ) -> None:
        out = tmp_path / "out.jsonl"
        path = write_rows("t.jsonl", tasks())
        banded(path, out, ScriptedEngine(solves), low=0.25, high=0.75, keep=["never", "medium"])
        assert [row["prompt"] for row in read_jsonl(out)] == ["q0", "q2", "q3", "q4"]

    def test_one_component_decides(self, write_rows: WriteRows, tmp_path: Path) -> None:
        """Points for style cannot make an answer pass, so they are refused, not dropped."""
        reward = [{"function": "exact_answer"}, LENGTH]
        path, out = write_rows("t.jsonl", tasks()), tmp_path / "o.jsonl"
        engine = ScriptedEngine(solves)
        said = r"2 are given \(exact_answer, length\): keep the one that tells right from wrong"
        with pytest.raises(RecipeError, match=said):
            banded(path, out, engine, reward=reward)
        assert not out.exists()
        assert banded(path, out, engine, reward=reward[:1]).bands["never"] == 1


class TestEstimates:
    def test_by_listing_all_subsets(self) -> None:
        for passed in range(9):
            rate = PassRate(passed, 8)
            answers = [True] * passed + [False] * (8 - passed)
            for k in (2, 4, 8):
                groups = list(combinations(answers, k))
                mixed = sum(any(g) and not all(g) for g in groups) / len(groups)
                assert rate.informative(k) == pytest.approx(mixed)

    @given(st.floats(0.02, 0.98))
    def test_unbiased_for_the_true_rate(self, p: float) -> None:
        """Averaged over all that can be drawn, the estimate is 1 - p^k - (1 - p)^k."""
        for k in (2, 4):
            mean = sum(
                math.comb(8, c) * p**c * (1 - p) ** (8 - c) * PassRate(c, 8).informative(k)
                for c in range(9)
            )
            assert mean == pytest.approx(1 - p**k - (1 - p) ** k)

    def test_the_report_on_drawn_rates(self, write_rows: WriteRows, tmp_path: Path) -> None:
        """True rates are known; the intervals have them, the counts of bands need not."""
        draw = np.random.default_rng(0)
        true = {f"q{n}": float(p) for n, p in enumerate(draw.beta(0.5, 0.8, size=400))}
        luck = {name: draw.random(8) for name in true}

        def answers(task: Task, number: int) -> str:
            name = str(task.prompt)
            return f"<answer>{'5' if luck[name][number] < true[name] else 'no'}</answer>"

        path = write_rows("t.jsonl", [{"prompt": name, "answer": "5"} for name in true])
        report = banded(path, tmp_path / "o.jsonl", ScriptedEngine(answers))
        rates = np.array(list(true.values()))
        assert report.pass_rate is not None
        assert report.pass_rate.low <= rates.mean() <= report.pass_rate.high
        for k, found in report.pass_at.items():
            assert found.low <= (1 - (1 - rates) ** k).mean() <= found.high
        for k, found in report.informative.items():
            assert found.low <= (1 - rates**k - (1 - rates) ** k).mean() <= found.high
        assert set(report.pass_at) == {1, 2, 4, 8}
        unsolvable = int((rates < 0.001).sum())
        assert report.bands["never"] > unsolvable, "most of them would be solved some day"
        # a task with this rate is never solved in 8 answers one time in 20
        assert (1 - report.hidden) ** 8 == pytest.approx(0.05)

    def test_bands_against_counting(self, write_rows: WriteRows, tmp_path: Path) -> None:
        path = write_rows("t.jsonl", tasks())
        report = banded(path, tmp_path / "o.jsonl", ScriptedEngine(solves))
        assert report.pass_rate is not None
        assert report.pass_rate.mean == pytest.approx(sum(RIGHT.values()) / 56)
        assert report.pass_at[8].mean == pytest.approx(6 / 7)
        assert report.informative[8].mean == pytest.approx(5 / 7)


REWARD = """
def judge(prompts, completions, answer, **columns):
    return [None if "hm" in said else float(f">{right}<" in said)
            for said, right in zip(completions, answer)]
"""


class TestUnscored:
    def test_they_are_counted_apart(self, write_rows: WriteRows, tmp_path: Path) -> None:
        """q0: no answer can be scored, which is not never; q3: two of eight cannot."""

        def says(task: Task, number: int) -> str:
            unreadable = {"q0": 8, "q3": 2}.get(str(task.prompt), 0)
            return "hm" if number >= 8 - unreadable else solves(task, number)

        (tmp_path / "mine.py").write_text(REWARD)
        out = tmp_path / "out.jsonl"
        reward = [{"function": "judge", "file": str(tmp_path / "mine.py")}]
        report = banded(write_rows("t.jsonl", tasks()), out, ScriptedEngine(says), reward=reward)
        assert (report.unscored, report.partly, report.bands["never"]) == (1, 1, 0)
        (row,) = [row for row in read_jsonl(out) if row["prompt"] == "q3"]
        assert (row["pass_rate"], row["pass_samples"]) == (4 / 6, 6)
        kinds = Counter(row["kind"] for row in read_jsonl(tmp_path / "out.dropped.jsonl"))
        assert kinds == {"unscored": 1, "always": 1}

    def test_nothing_scored_is_an_error(self, write_rows: WriteRows, tmp_path: Path) -> None:
        (tmp_path / "mine.py").write_text(REWARD)
        reward = [{"function": "judge", "file": str(tmp_path / "mine.py")}]
        engine = ScriptedEngine(lambda task, number: "hm")
        with pytest.raises(UnscoredError, match="not one answer to 7 tasks could be scored"):
            banded(write_rows("t.jsonl", tasks()), tmp_path / "o.jsonl", engine, reward=reward)
        assert not (tmp_path / "o.jsonl").exists()


def test_an_interrupted_one_goes_on(write_rows: WriteRows, tmp_path: Path) -> None:
    rows = [{"prompt": f"t{n}", "answer": "5"} for n in range(80)]
    path, out = write_rows("t.jsonl", rows), tmp_path / "out.jsonl"

    def right(task: Task, number: int) -> str:
        return f"<answer>{'5' if number % 2 else 'no'}</answer>"

    def dies(task: Task, number: int) -> str:
        if task.prompt == "t70":
            raise Stop
        return right(task, number)

    with pytest.raises(Stop):
        banded(path, out, ScriptedEngine(dies))
    engine = ScriptedEngine(right)
    report = banded(path, out, engine)
    assert len(engine.asked) == (80 - 64) * 8
    assert report.bands["medium"] == 80
    assert not folder_of(out).exists()


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"low": 0.8, "high": 0.2}, "`low` 0.8 is above `high` 0.2"),
            ({"samples": 1}, "greater than or equal to 2"),
            ({"keep": ["average"]}, "'average' is none of never, hard, medium, easy, always"),
            ({"sampling": {"temperature": 0}}, "at temperature 0 all 8 samples are one"),
            ({"reward": []}, "at least 1 item"),
        ],
    )
    def test_settings(self, options: dict[str, Any], message: str) -> None:
        given = {"model": "m", "reward": [{"function": "exact_answer"}], **options}
        with pytest.raises(RecipeError, match=message):
            load(BandSettings, given)

    def test_a_column_that_is_missing_is_found_before_anything_is_asked(
        self, write_rows: WriteRows, tmp_path: Path
    ) -> None:
        rows = [*({"prompt": f"t{n}", "answer": "5"} for n in range(100)), {"prompt": "t100"}]
        engine = ScriptedEngine(lambda task, number: "5")
        with pytest.raises(DataError, match=r"t.jsonl:101: reward exact_answer reads the column"):
            banded(write_rows("t.jsonl", rows), tmp_path / "o.jsonl", engine)
        assert not engine.asked

    def test_a_column_that_the_reward_reads(self, write_rows: WriteRows, tmp_path: Path) -> None:
        path = write_rows("t.jsonl", [{"prompt": "q0"}])
        args = ["data", "band", path, "--model", "m", "--output", tmp_path / "o.jsonl"]
        with pytest.raises(DataError, match=r"t.jsonl:1: reward exact_answer reads the column"):
            strop(*args, "--reward", "exact_answer", "--dry-run")
        with pytest.raises(UsageError, match="unknown reward 'exact'"):
            strop(*args, "--reward", "exact", "--dry-run")


class TestCommand:
    def test_a_model_folder(
        self, write_rows: WriteRows, tmp_path: Path, model_folder: Path
    ) -> None:
        path, out = write_rows("t.jsonl", tasks()), tmp_path / "out"
        recipe = tmp_path / "reward.yaml"
        recipe.write_text("reward: [{function: regex, options: {pattern: '.'}}]\n")
        every = "never,hard,medium,easy,always"
        args = ["data", "band", path, "--model", model_folder, "--output", out, "--samples", 4,
                "--max-tokens", 4, "--reward", recipe, "--keep", every]  # fmt: skip
        assert "would sample 4 answers to each of 7 tasks" in strop(*args, "--dry-run")
        found = json.loads(strop(*args, "--json"))
        assert found["kept"] == found["tasks"] == 7
        assert sum(found["bands"].values()) == 7
        shown = strop(*args, "--overwrite")
        assert "whose 4 answers disagree" in shown
        assert "a task of `never` may still have a pass rate of 0.53" in shown
        assert all(len(line) <= 100 for line in shown.splitlines()[:-1])
        manifest = json.loads((out / "manifest.json").read_text())
        assert manifest["settings"]["reward"][0]["function"] == "regex"
