"""`strop data split`."""

from __future__ import annotations

from typing import Annotated

import typer

from strop.cli.data.options import Inputs, MaxBad, OutputPath, Overwrite, settings_of
from strop.cli.options import AsJson, DryRun


def split(
    files: Inputs,
    output: OutputPath,
    fractions: Annotated[
        str, typer.Option(help="Parts and their fractions, the latest last.")
    ] = "train=0.8,validation=0.1,test=0.1",
    by: Annotated[str | None, typer.Option(help="Stratify by this column.")] = None,
    time: Annotated[str | None, typer.Option(help="Split in the order of this column.")] = None,
    group: Annotated[
        str | None, typer.Option(help="Keep records with one value of this column together.")
    ] = None,
    near: Annotated[
        bool, typer.Option("--near/--no-near", help="Keep near-duplicate prompts together.")
    ] = True,
    seed: Annotated[int | None, typer.Option(help="Draws other parts; 0 unless given.")] = None,
    max_bad: MaxBad = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Split records into train, validation and test so that no prompt is in two of them.

    Writes a folder with a file for each part. A record's part depends on its content alone.

    Example: strop data split pairs.jsonl --output split --by meta.source
    """
    from strop.cli.data.shown import show, table
    from strop.curate.manifest import sources_of
    from strop.curate.split import split as split_records
    from strop.recipe.curate import SplitSettings

    given = {"fractions": _fractions(fractions), "by": by, "time": time, "group": group,
             "near": near, "seed": seed}  # fmt: skip
    settings = settings_of(SplitSettings, given)
    target = None if dry_run else output
    report = split_records(sources_of(files, max_bad), target, settings, overwrite=overwrite)
    rows = [[name, f"{report.rows[name]:,}", f"{report.prompts[name]:,}"] for name in report.rows]
    notes = [f"{report.groups:,} groups stay together; {report.near:,} prompts are near-duplicates",
             *(f"cut at {cut}" for cut in report.cuts)]  # fmt: skip
    show(report, as_json, output=output, dry_run=dry_run,
         body=table(["part", "rows", "prompts"], rows), notes=notes)  # fmt: skip


def _fractions(text: str) -> dict[str, str]:
    """`train=0.9,test=0.1`."""
    from strop.errors import UsageError

    parts = [part.partition("=") for part in text.split(",") if part.strip()]
    names = [name.strip() for name, _, _ in parts]
    if not all(equals for _, equals, _ in parts) or len(set(names)) < len(names):
        raise UsageError(f"--fractions is {text!r}", fix="write train=0.8,validation=0.1,test=0.1")
    return {name: value for name, (_, _, value) in zip(names, parts, strict=True)}
