"""`strop data map`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from strop.cli.data.options import Inputs, MaxBad, OutputPath, Overwrite, settings_of
from strop.cli.options import AsJson, DryRun


def map_records(
    files: Inputs,
    output: OutputPath,
    file: Annotated[Path, typer.Option(help="A Python file of yours.")],
    function: Annotated[str, typer.Option(help="Its function: row in, row or None out.")],
    max_bad: MaxBad = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Change every record by a function of your own.

    It gets a row in strop's form and returns one, or None to leave it out.

    Example: strop data map answers.jsonl --file edits.py --function edit --output edited.jsonl
    """
    from strop.cli.data.shown import show
    from strop.curate.manifest import sources_of
    from strop.curate.mapping import map_records as map_all
    from strop.recipe.curate import MapSettings

    settings = settings_of(MapSettings, {"file": file, "function": function})
    target = None if dry_run else output
    report = map_all(sources_of(files, max_bad), target, settings, overwrite=overwrite)
    show(report, as_json, output=output, dry_run=dry_run)
