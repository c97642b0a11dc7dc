"""Runs a sweep, rung by rung. Interrupted and run again, it goes on: every rung is a pipeline."""

from __future__ import annotations

import html
from pathlib import Path

from strop.files import write_json, write_whole
from strop.pipeline.run import Observer, run_pipeline
from strop.pipeline.sweep.result import Row, SweepResult, decide, measured
from strop.pipeline.sweep.rungs import (
    Setting,
    checked,
    eval_folder,
    expect_new_or_same,
    run_folder,
    rung_pipeline,
    settings_of,
    survivors,
)
from strop.recipe.loading.load import flat, load_recipe
from strop.recipe.sweep import SweepRecipe
from strop.tracking.report import page

HEAD = ("setting", "rung", "target", "behind the best", "general", "margin", "KL")


def run_sweep(sweep: SweepRecipe, observer: Observer) -> SweepResult:
    """Train, measure and halve; writes `sweep.json` and `sweep.html` into the sweep's folder.

    Raises `RecipeError` for a value that the recipe refuses, and for a folder of another sweep.
    """
    recipes = checked(sweep)
    expect_new_or_same(sweep)
    settings = settings_of(sweep)
    rows: dict[Setting, Row] = {}
    for rung in range(len(sweep.rungs)):
        run_pipeline(rung_pipeline(sweep, rung, settings, recipes), observer)
        for setting in settings:
            rows[setting] = measured(
                setting, rung, run_folder(sweep, rung, setting),
                eval_folder(sweep, rung, setting), sweep.target, sweep.general,
            )  # fmt: skip
        if rung + 1 < len(sweep.rungs):
            settings = survivors({one: rows[one].target for one in settings}, sweep.keep)
    evals = {one.said: eval_folder(sweep, len(sweep.rungs) - 1, one) for one in settings}
    result = decide(sweep.target, list(rows.values()), evals, own_setting(sweep))
    write_json(Path(sweep.output) / "sweep.json", result.plain())
    write_whole(Path(sweep.output) / "sweep.html", sweep_page(result))
    return result


def own_setting(sweep: SweepRecipe) -> str | None:
    """The setting that the recipe has as it is written, if it is among the values."""
    said = flat(load_recipe(Path(sweep.recipe), []).plain())
    for setting in settings_of(sweep):
        if all(said.get(key) == value for key, value in setting.values):
            return setting.said
    return None


def cells(row: Row) -> tuple[str, ...]:
    """A row of the table; a dash where nothing was measured."""
    behind = "-"
    if row.behind is not None:
        estimate, low, high = row.behind
        behind = f"{estimate:.3f} ({low:+.3f} to {high:+.3f}){' surely' if row.worse else ''}"
    general = " ".join(f"{value:.3f}" for value in row.general.values())
    return (
        row.setting, str(row.rung), f"{row.target:.3f}", behind, general or "-",
        "-" if row.margin is None else f"{row.margin:.3g}",
        "-" if row.kl is None else f"{row.kl:.3f}",
    )  # fmt: skip


def sweep_page(result: SweepResult) -> str:
    head = "".join(f"<th>{name}" for name in HEAD)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in cells(row)) + "</tr>"
        for row in result.rows
    )
    said = f"<p>{html.escape(result.said)}</p>"
    return page(f"Sweep of {result.target}", [said, f"<table><tr>{head}</tr>{body}</table>"])
