"""The page of a run: one small file that says what happened, and where the run was resumed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from strop.errors import UsageError
from strop.recipe.loading.load import load_recipe
from strop.tracking.report import curves
from strop.tracking.story.page import report_html, story_html, write_report
from strop.tracking.story.story import read_story
from strop.train.run import train
from tests.support.runs import break_off, metrics

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"


def run_of(folder: Path, steps: int, samples: int = 0, said: str = EVIL) -> Path:
    folder.mkdir()
    rows = [{"step": n, "reward": 0.1 + n / steps, "entropy": 2.0 - n / steps,
             "loss": 1.0 / n} for n in range(1, steps + 1)]  # fmt: skip
    shown = [{"step": n, "prompt": said, "completion": said, "reward": 1.0}
             for n in range(1, samples + 1)]  # fmt: skip
    (folder / "recipe.resolved.yaml").write_text("method: grpo\n")
    (folder / "lineage.json").write_text(json.dumps({"method": "grpo", "resumed": [{"step": 4}]}))
    for name, lines in (("metrics.jsonl", rows), ("samples.jsonl", shown)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in lines))
    return folder


def test_a_held_out_metric_is_drawn_over_its_trained_one() -> None:
    rows = [{"step": n, "loss": 1.0 / n, "eval_loss": 2.0 / n} for n in (1, 2)]
    drawn = curves(rows).data
    assert [(one.name, one.xaxis) for one in drawn] == [("loss", "x"), ("eval_loss", "x")]


def test_a_long_run_makes_a_small_page_that_needs_nothing_else(tmp_path: Path) -> None:
    page = write_report(run_of(tmp_path / "run", 10_000, samples=5_000, said="a" * 400)).read_text()
    assert len(page.encode()) < 1_000_000
    assert "Over 10000 steps the reward rose from 0.101 to 1.1" in page
    assert not re.search(r"<script|(src|href)=|url\(|@import", page)
    assert "finished" in page


def test_nothing_that_a_model_said_is_html(tmp_path: Path) -> None:
    story = read_story(run_of(tmp_path / "run", 5, samples=3))
    page = report_html(story)
    assert EVIL not in page
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_torn_lines_are_told_on_the_page(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", 5)
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write("torn\n")
    (run / "lineage.json").write_text("{")
    said = story_html(read_story(run))
    assert "metrics.jsonl, line 6: the line is no row of metrics" in said
    assert "lineage.json cannot be read" in said
    assert "Over 5 steps" in said


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="this folder holds no run"):
        read_story(tmp_path)


def test_a_run_notes_where_it_was_resumed(recipes: dict[str, Path]) -> None:
    more = ["run.steps=4", "run.save_every=1"]
    recipe = load_recipe(recipes["sft"], more)
    break_off(recipe, 2)
    run = train(recipe, resume=True).parent
    assert [row["step"] for row in metrics(run)] == [1, 2, 3, 4]
    (at,) = read_story(run).facts.resumed
    assert 1 <= at <= 2
    page = (run / "report.html").read_text()
    assert f"resumed after step {at} (dashed lines)" in page
    assert 'class="resumed"' in page
