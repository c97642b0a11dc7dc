"""`strop data balance`."""

from __future__ import annotations

from typing import Annotated

import typer

from strop.cli.data.options import Inputs, MaxBad, OutputPath, Overwrite, settings_of
from strop.cli.options import AsJson, DryRun


def balance(
    files: Inputs,
    output: OutputPath,
    remove: Annotated[str, typer.Option(help="The bias: length or label.")] = "length",
    unit: Annotated[
        str | None, typer.Option(help="Lengths in characters (unless given) or words.")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Distance of the AUC from 0.5 that may stay; 0.04 unless given."),
    ] = None,
    ratio: Annotated[
        float | None, typer.Option(help="With label: most rows of one label a row of the other.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws other rows.")] = 0,
    max_bad: MaxBad = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Leave out as few pairs or thumbs as remove a length bias, or an imbalance of labels.

    Prints the AUC of length alone before and after. Rows left out are in dropped.jsonl.

    Example: strop data balance pairs.jsonl --output balanced.jsonl
    """
    from strop.cli.data.shown import show, table
    from strop.curate.balance import balance as balance_records
    from strop.curate.manifest import sources_of
    from strop.recipe.curate import BalanceSettings

    given = {"remove": remove, "unit": unit, "tolerance": tolerance, "ratio": ratio, "seed": seed}
    settings = settings_of(BalanceSettings, given)
    target = None if dry_run else output
    report = balance_records(sources_of(files, max_bad), target, settings, overwrite=overwrite)
    names = {"rows": "rows", "auc": "AUC of length alone", "pooled_auc": "AUC over all answers",
             "liked": "share liked"}  # fmt: skip
    before, after = report.plain()["before"], report.plain()["after"]
    rows = [[said, _cell(before[name]), _cell(after[name])] for name, said in names.items()
            if before[name] is not None]  # fmt: skip
    show(report, as_json, output=output, dry_run=dry_run,
         body=table(["", "before", "after"], rows))  # fmt: skip


def _cell(value: float | int | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
