"""Shows a pipeline: its plan, and what happens while it runs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from strop.cli.show import Progress, setup

if TYPE_CHECKING:
    from strop.pipeline import Observer, Outcome, Planned
    from strop.recipe.pipeline import Stage

WIDTH = 100


@contextmanager
def watching(as_json: bool, *, planned: bool = False) -> Iterator[Observer]:
    """An observer that prints one line when a stage starts and one when it ends; with `planned`
    the plan first."""
    from strop.pipeline import Observer

    setup()
    started = time.monotonic()
    with Progress(as_json) as progress:

        def on_plan(plan: Sequence[Planned]) -> None:
            if planned:
                show_plan(plan, as_json)

        def on_stage(stage: Stage) -> None:
            nonlocal started
            started = time.monotonic()
            if not as_json:
                progress.console.print(f"[bold]{stage.name}[/bold] ({stage.kind})")

        def on_outcome(stage: Stage, outcome: Outcome, said: str) -> None:
            progress.stop()
            seconds = time.monotonic() - started
            if as_json:
                row = {"stage": stage.name, "outcome": outcome, "said": said, "seconds": seconds}
                print(json.dumps(row), flush=True)
            else:
                line = f"  {outcome} in {seconds:.1f} s: {said}"
                progress.console.print(line, markup=False, soft_wrap=True)

        yield Observer(
            on_plan=on_plan,
            on_stage=on_stage,
            on_start=progress.start,
            on_step=progress.step,
            on_outcome=on_outcome,
        )


def show_plan(plan: Sequence[Planned], as_json: bool) -> None:
    """A table of at most 100 columns, or one JSON line a stage."""
    if as_json:
        for row in plan:
            named = {"stage": row.stage.name, "kind": row.stage.kind, "action": row.action}
            print(json.dumps({**named, "why": row.why, "needs": row.needs}), flush=True)
        return
    console = Console(highlight=False)
    if not console.is_terminal or console.width > WIDTH:
        console = Console(highlight=False, width=WIDTH)
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "kind", "action", "why", "needs"):
        table.add_column(column, overflow="fold")
    for row in plan:
        table.add_row(
            row.stage.name, row.stage.kind, row.action, row.why, ", ".join(row.needs)
        )  # fmt: skip
    console.print(table, markup=False)
