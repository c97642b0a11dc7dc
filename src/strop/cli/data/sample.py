"""`strop data sample`."""

from __future__ import annotations

from typing import Annotated

import typer

from strop.cli.data.options import (
    AtOnce,
    Cache,
    Endpoint,
    Inputs,
    MaxBad,
    Model,
    OutputPath,
    Overwrite,
    PerSecond,
    Requests,
    Tokens,
    settings_of,
)
from strop.cli.options import AsJson, DryRun, Servers, holders


def sample(
    files: Inputs,
    output: OutputPath,
    model: Model,
    samples: Annotated[int, typer.Option(min=1, help="Answers to each prompt.")] = 1,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Nucleus; 1 is off.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of an answer.")] = 256,
    truncated: Annotated[
        str, typer.Option(help="keep or drop answers that met the token limit.")
    ] = "keep",
    seed: Annotated[int, typer.Option(help="Draws other answers.")] = 0,
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
    """Write a model's answers to prompts as rows of prompt and completion.

    Interrupted and run again, it goes on.

    Example: strop data sample prompts.jsonl --model runs/sft/final --samples 4
    --output answers.jsonl
    """
    from strop.cli.data.shown import counting, show
    from strop.cli.show import setup
    from strop.curate.manifest import sources_of
    from strop.curate.sample import sample as sample_answers
    from strop.recipe.curate import SampleSettings

    setup()
    given = {"model": model, "samples": samples, "seed": seed, "truncated": truncated,
             "sampling": {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens},
             "engine": holders(engine), "endpoint": endpoint, "cache": cache,
             "requests": requests, "tokens": tokens, "at_once": at_once,
             "per_second": per_second}  # fmt: skip
    settings = settings_of(SampleSettings, given)
    inputs = sources_of(files, max_bad)
    target = None if dry_run else output
    with counting(as_json, "prompts") as advance:
        report = sample_answers(inputs, target, settings, overwrite=overwrite, advance=advance)
    if dry_run and not as_json:
        print(f"would sample {samples} answers to each of {report.prompts:,} prompts")
        return
    show(report, as_json, output=output, dry_run=dry_run)
