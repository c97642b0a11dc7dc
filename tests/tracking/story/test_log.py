"""A log is read on while it is written, and what cannot be read is told."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from strop.tracking.story.log import MetricsLog


def row(step: int, **values: object) -> str:
    return json.dumps({"step": step, **values}) + "\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def test_columns_have_the_steps_at_which_they_were_measured(path: Path) -> None:
    path.write_text(row(1, loss=2.0) + row(2, loss=1.5, eval_loss=3.0) + row(3, loss=None)
                    + row(4, loss=1.0))  # fmt: skip
    log = MetricsLog(path)
    assert log.refresh()
    steps, values = log.series("loss")
    assert (steps.tolist(), values.tolist()) == ([1, 2, 4], [2.0, 1.5, 1.0])
    steps, values = log.series("eval_loss")
    assert (steps.tolist(), values.tolist()) == ([2], [3.0])
    assert log.series("nothing")[0].size == 0
    assert (len(log), log.step, log.problems) == (4, 4, [])


def test_it_reads_on_from_where_it_was_and_waits_for_the_end_of_a_line(path: Path) -> None:
    path.write_text(row(1, loss=2.0) + '{"step": 2, "lo')
    log = MetricsLog(path)
    assert log.refresh()
    assert not log.refresh()
    assert log.step == 1
    assert log.problems == []
    with path.open("a") as stream:
        stream.write('ss": 1.5}\n')
    assert log.refresh()
    assert log.series("loss")[1].tolist() == [2.0, 1.5]


def test_a_log_that_was_cut_or_replaced_is_read_anew(path: Path) -> None:
    path.write_text(row(1, loss=2.0) + row(2, loss=1.5) + row(3, loss=1.0))
    log = MetricsLog(path)
    log.refresh()
    path.write_text(row(1, loss=2.0))
    assert log.refresh()
    assert log.series("loss")[0].tolist() == [1]
    other = path.with_name("other")
    other.write_text(row(1, loss=7.0) + row(2, loss=8.0))
    other.replace(path)
    log.refresh()
    assert log.series("loss")[1].tolist() == [7.0, 8.0]


def test_a_torn_line_is_named_and_the_others_are_kept(path: Path) -> None:
    path.write_text(row(1, loss=2.0) + '{"step": 2, "loss": 1.\n' + "[3]\n" + row(4, loss=1.0))
    log = MetricsLog(path)
    log.refresh()
    assert log.series("loss")[0].tolist() == [1, 4]
    assert [problem.split(":")[0] for problem in log.problems] == [
        "metrics.jsonl, line 2", "metrics.jsonl, line 3",
    ]  # fmt: skip


def test_many_torn_lines_are_counted(path: Path) -> None:
    path.write_text("torn\n" * 12)
    log = MetricsLog(path)
    log.refresh()
    assert log.problems[-1] == "metrics.jsonl: 7 more lines cannot be read"


def test_alarms_have_names(path: Path) -> None:
    path.write_text(row(9, loss=1.0, alarms=[["stop", "kl_runaway at step 9: too far"]]))
    log = MetricsLog(path)
    log.refresh()
    (alarm,) = log.alarms
    assert (alarm.name, alarm.step, alarm.action) == ("kl_runaway", 9, "stop")


def test_a_log_that_is_not_there_is_empty(path: Path) -> None:
    log = MetricsLog(path)
    assert not log.refresh()
    assert len(log) == 0
    path.write_text(row(1, loss=math.pi))
    assert log.refresh()
    path.unlink()
    assert log.refresh()
    assert len(log) == 0
