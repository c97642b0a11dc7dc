"""A run in a notebook: the page in a frame, the text elsewhere, the metrics for pandas."""

from __future__ import annotations

import html
import json
import math
import re
import sys
from pathlib import Path

import pytest

import strop
from strop.errors import UsageError
from strop.tracking.story.page import report_html
from strop.tracking.story.story import read_story
from strop.tracking.terminal.lines import story_lines, written
from tests.support.runs import Finished
from tests.support.studio import write_run


def test_it_displays_the_runs_page_and_prints_its_text(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", said="<script>alert(1)</script>")
    shown, story = strop.show(run), read_story(run)
    assert repr(shown) == written(story_lines(story))
    framed = shown._repr_html_()
    frame = r'<iframe title="[^"]*" sandbox="" srcdoc="([^"]*)" style="[^"]*"></iframe>'
    found = re.fullmatch(frame, framed)
    assert found is not None
    assert html.unescape(found[1]) == report_html(story)
    assert "<script" not in framed
    assert shown.sentence == story.sentence


def test_every_display_reads_the_folder_again(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    shown = strop.show(str(run))
    with (run / "metrics.jsonl").open("a") as log:
        log.write(json.dumps({"step": 41, "reward": 0.9}) + "\n")
    assert "step 41" in repr(shown)
    assert shown.frame().index[-1] == 41


def test_the_frame_has_a_row_a_step_and_a_column_a_metric(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=2)
    (run / "metrics.jsonl").write_text(
        '{"step": 0, "eval_loss": 3.0}\n'
        '{"step": 1, "loss": 2.5, "alarms": [["warn", "spike at step 1: x"]]}\n'
        '{"step": 2, "loss": 2.0, "eval_loss": 2.5}\n'
        '{"step": 2, "loss": 1.5}\n{"step": 3, "lo'
    )
    frame = strop.show(run).frame()
    assert frame.index.name == "step"
    assert frame.index.tolist() == [0, 1, 2]
    assert list(frame.columns) == ["eval_loss", "loss"]
    assert frame["loss"].tolist()[1:] == [2.5, 1.5]
    assert math.isnan(frame["loss"][0])
    assert frame["eval_loss"].tolist()[::2] == [3.0, 2.5]
    (run / "metrics.jsonl").write_text("")
    assert strop.show(run).frame().shape == (0, 0)


def test_what_training_returned_is_a_run(finished: Finished) -> None:
    result = strop.TrainResult(finished("sft"))
    shown = strop.show(result)
    assert shown.folder == result.folder
    assert result.frame()["loss"].tolist() == list(result.metrics["loss"].values)
    assert result.frame().equals(shown.frame())


def test_without_pandas_it_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = strop.show(write_run(tmp_path / "run"))
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="a frame needs pandas\n  fix: pip install pandas"):
        shown.frame()


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="this folder holds no run"):
        strop.show(tmp_path)
