"""`strop data select`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from strop.cli.data.options import (
    AtOnce,
    Cache,
    Endpoint,
    Inputs,
    MaxBad,
    OutputPath,
    Overwrite,
    PerSecond,
    Requests,
    Tokens,
    settings_of,
)
from strop.cli.options import AsJson, DryRun, Servers, holders


def select(
    files: Inputs,
    output: OutputPath,
    keep: Annotated[int, typer.Option(min=1, help="How many records to keep.")],
    by: Annotated[
        str | None,
        typer.Option(help="quality, complexity, deita (both) or ifd with --model; or a column."),
    ] = None,
    order: Annotated[str, typer.Option(help="Which scores are better: highest or lowest.")] = (
        "highest"
    ),
    diverse: Annotated[
        bool, typer.Option("--diverse", help="Pick records that cover the others (k-centre).")
    ] = False,
    pool: Annotated[
        float | None, typer.Option(help="With both, among so many times --keep; 3 unless given.")
    ] = None,
    embeddings: Annotated[
        Path | None, typer.Option(help="A model2vec folder to compare by, in place of TF-IDF.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The judge; for ifd the model whose likelihoods count.")
    ] = None,
    engine: Servers = [],  # noqa: B006
    endpoint: Endpoint = None,
    cache: Cache = None,
    requests: Requests = None,
    tokens: Tokens = None,
    at_once: AtOnce = None,
    per_second: PerSecond = None,
    max_bad: MaxBad = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Keep the best records by a score, the most diverse ones, or the most diverse of the best.

    Scores that are worked out become columns of the rows. Run again, what a judge has answered is
    not asked again.

    Example: strop data select sft.jsonl --by ifd --model models/sft --keep 1000 --diverse
    --output chosen.jsonl
    """
    from strop.cli.data.shown import counting, show
    from strop.cli.show import setup
    from strop.curate.difficulty.select import select as select_records
    from strop.curate.manifest import sources_of
    from strop.recipe.curate import SelectSettings

    setup()
    given = {"keep": keep, "by": by, "order": order, "diverse": diverse, "pool": pool,
             "embeddings": embeddings, "model": model, "engine": holders(engine),
             "endpoint": endpoint, "cache": cache, "requests": requests, "tokens": tokens,
             "at_once": at_once, "per_second": per_second}  # fmt: skip
    settings = settings_of(SelectSettings, given)
    inputs = sources_of(files, max_bad)
    target = None if dry_run else output
    with counting(as_json, "records") as advance:
        report = select_records(inputs, target, settings, overwrite=overwrite, advance=advance)
    scored = [] if report.lowest is None else [
        f"{report.by} of the kept ones from {report.lowest:.3g} to {report.highest:.3g}"
    ]  # fmt: skip
    show(report, as_json, output=output, dry_run=dry_run, notes=scored)
