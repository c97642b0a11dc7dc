"""`strop data mix`."""

from __future__ import annotations

from typing import Annotated

import typer

from strop.cli.data.options import MaxBad, OutputPath, Overwrite, settings_of
from strop.cli.options import AsJson, DryRun


def mix(
    files: Annotated[list[str], typer.Argument(metavar="FILE=SHARE...", help="a.jsonl=0.7")],
    output: OutputPath,
    rows: Annotated[
        int | None, typer.Option(help="Rows to write; unless given as many as repeat no record.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws other rows.")] = 0,
    max_bad: MaxBad = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Mix several files into one, in exact shares; says what had to be repeated for it.

    Example: strop data mix own.jsonl=0.7 replay.jsonl=0.3 --rows 10000 --output mixed.jsonl
    """
    from pathlib import Path

    from strop.cli.data.shown import show, table
    from strop.curate.manifest import sources_of
    from strop.curate.mix import mix as mix_records
    from strop.errors import UsageError
    from strop.recipe.curate import MixSettings

    parts = [part.rpartition("=") for part in files]
    if not all(name for name, _, _ in parts):
        raise UsageError("every file needs its share", fix="write them as own.jsonl=0.7")
    given = {"shares": [share for _, _, share in parts], "rows": rows, "seed": seed}
    settings = settings_of(MixSettings, given, {"shares": "a share"})
    inputs = sources_of([Path(name) for name, _, _ in parts], max_bad)
    report = mix_records(inputs, None if dry_run else output, settings, overwrite=overwrite)
    lines = [
        [one.name, f"{one.have:,}", f"{one.rows:,}",
         f"upsampled, up to {one.times} times" if one.times > 1 else "no record repeated"]
        for one in report.inputs
    ]  # fmt: skip
    show(report, as_json, output=output, dry_run=dry_run,
         body=table(["input", "has", "written", ""], lines))  # fmt: skip
