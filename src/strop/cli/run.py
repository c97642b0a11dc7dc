"""`strop run`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from strop.cli.options import AsJson, DryRun, Overrides


def run(
    pipeline: Annotated[Path, typer.Argument(help="A pipeline (YAML).")],
    overrides: Overrides = [],  # noqa: B006 - typer reads it, nobody writes it
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Run a pipeline's stages in order; stages already done with the same inputs are skipped.

    A gate that does not pass stops it with the gate's exit code.

    Example: strop run strop-demo/pipeline.yaml
    """
    from strop.cli.stages import watching
    from strop.pipeline import run_pipeline
    from strop.recipe.load import load
    from strop.recipe.pipeline import Pipeline

    loaded = load(Pipeline, pipeline, overrides)
    if dry_run:
        stages = [{"stage": stage.name, "kind": stage.kind} for stage in loaded.stages]
        print("\n".join(json.dumps(stage) for stage in stages))
        return
    with watching(as_json) as observer:
        run_pipeline(loaded, observer)
