"""The page of a run says where it was resumed."""

from __future__ import annotations

import json
from pathlib import Path

from strop.recipe.loading.load import load_recipe
from strop.tracking.report import curves, resumed_at, write_report
from strop.train.run import train
from tests.support.runs import break_off, metrics

ROWS = [{"step": step, "loss": 1.0 / step, "reward": 0.1 * step} for step in range(1, 7)]


def test_a_dashed_line_stands_after_each_step_in_each_panel() -> None:
    drawn = curves(ROWS, [2, 4])
    lines = sorted(
        (one.xref.removesuffix(" domain"), one.x0, one.x1) for one in drawn.layout.shapes
    )
    assert lines == [("x", 2.5, 2.5), ("x", 4.5, 4.5), ("x2", 2.5, 2.5), ("x2", 4.5, 4.5)]
    assert {one.line.dash for one in drawn.layout.shapes} == {"dash"}
    assert not curves(ROWS).layout.shapes
    assert not curves([], [2]).layout.shapes


def test_steps_are_read_once_each_and_in_order(tmp_path: Path) -> None:
    assert resumed_at(tmp_path) == []
    noted = [{"step": 4}, {"step": 2}, {"step": 4}]
    (tmp_path / "lineage.json").write_text(json.dumps({"resumed": noted}))
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert resumed_at(tmp_path) == [2, 4]
    page = write_report(tmp_path).read_text()
    assert "Resumed after step 2, 4 (dashed lines)." in page


def test_a_run_notes_where_it_was_resumed(recipes: dict[str, Path]) -> None:
    more = ["run.steps=4", "run.save_every=1"]
    recipe = load_recipe(recipes["sft"], more)
    break_off(recipe, 2)
    run = train(recipe, resume=True).parent
    assert [row["step"] for row in metrics(run)] == [1, 2, 3, 4]
    (at,) = resumed_at(run)
    assert 1 <= at <= 2
    assert f"Resumed after step {at} (dashed lines)." in (run / "report.html").read_text()
