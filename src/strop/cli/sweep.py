"""`strop sweep`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from strop.cli.options import AsJsonLines, DryRun, Overrides


def sweep(
    recipe: Annotated[Path, typer.Argument(help="A sweep (YAML).")],
    overrides: Overrides = [],  # noqa: B006 - typer reads it, nobody writes it
    dry_run: DryRun = False,
    as_json: AsJsonLines = False,
) -> None:
    """Train one recipe at several values, keep the better half, say whether the best is better.

    Example: strop sweep beta.yaml
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from strop.cli.show import setup
    from strop.cli.stages import watching
    from strop.pipeline.sweep.run import HEAD, cells, run_sweep
    from strop.pipeline.sweep.rungs import checked
    from strop.recipe.loading.load import load
    from strop.recipe.sweep import SweepRecipe

    setup()
    loaded = load(SweepRecipe, recipe, overrides)
    if dry_run:
        for setting in checked(loaded):
            print(
                f"would train {setting.said} at {', '.join(map(str, loaded.rungs))} of its length"
            )
        return
    with watching(as_json) as observer:
        result = run_sweep(loaded, observer)
    if as_json:
        print(json.dumps(result.plain()))
        return
    console = Console(highlight=False)
    table = Table(*HEAD, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in result.rows:
        table.add_row(*cells(row))
    console.print(table)
    console.print(result.said, markup=False)
    console.print(f"saved {loaded.output}", soft_wrap=True, markup=False)
