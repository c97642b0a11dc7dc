"""`strop run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from strop.cli.options import AsJsonLines, DryRun, Overrides


def run(
    pipeline: Annotated[Path, typer.Argument(help="A pipeline (YAML).")],
    overrides: Overrides = [],  # noqa: B006 - typer reads it, nobody writes it
    dry_run: DryRun = False,
    as_json: AsJsonLines = False,
) -> None:
    """Print the plan, then run what is not up to date, in order; run again, it goes on.

    A gate that does not pass goes back to an earlier stage if it says so, and else stops
    everything with its exit code.

    Example: strop run strop-demo/pipeline.yaml --dry-run
    """
    from strop.cli.stages import show_plan, watching
    from strop.pipeline import plan, run_pipeline
    from strop.recipe.loading.load import load
    from strop.recipe.pipeline import Pipeline

    loaded = load(Pipeline, pipeline, overrides)
    if dry_run:
        show_plan(plan(loaded), as_json)
        return
    with watching(as_json, planned=True) as observer:
        run_pipeline(loaded, observer)
