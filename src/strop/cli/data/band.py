"""`strop data band`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from strop.curate.difficulty.band import BandReport
    from strop.stats.share import Share


def band(
    files: Inputs,
    output: OutputPath,
    model: Model,
    reward: Annotated[
        str, typer.Option(help="A reward by name (exact_answer), or a recipe with `reward` (YAML).")
    ],
    samples: Annotated[int, typer.Option(min=2, help="Answers to each task.")] = 8,
    low: Annotated[float, typer.Option(help="Pass rates below are `hard`.")] = 0.2,
    high: Annotated[float, typer.Option(help="Pass rates above are `easy`.")] = 0.8,
    keep: Annotated[
        str, typer.Option(help="Bands to keep, of never, hard, medium, easy, always.")
    ] = "hard,medium,easy",
    right: Annotated[float, typer.Option(help="Reward from which an answer passes.")] = 1.0,
    temperature: Annotated[float, typer.Option(min=0, help="Of the sampling.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of an answer.")] = 256,
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
    """Sample answers to tasks, write their pass rates, drop what is always or never solved.

    Rows get `pass_rate`, `pass_samples` and `band`. Interrupted and run again, it goes on.

    Example: strop data band tasks.jsonl --model runs/sft/final --reward exact_answer
    --output banded.jsonl
    """
    from strop.cli.data.shown import counting, show, table
    from strop.cli.show import setup
    from strop.curate.difficulty.band import band as band_tasks
    from strop.curate.manifest import sources_of
    from strop.recipe.curate import BandSettings

    setup()
    given = {"model": model, "reward": _components(reward), "right": right, "samples": samples,
             "low": low, "high": high, "seed": seed, "engine": holders(engine),
             "endpoint": endpoint, "cache": cache,
             "keep": [name.strip() for name in keep.split(",") if name.strip()],
             "sampling": {"temperature": temperature, "max_tokens": max_tokens},
             "requests": requests, "tokens": tokens, "at_once": at_once,
             "per_second": per_second}  # fmt: skip
    settings = settings_of(BandSettings, given)
    inputs = sources_of(files, max_bad)
    target = None if dry_run else output
    with counting(as_json, "tasks") as advance:
        report = band_tasks(inputs, target, settings, overwrite=overwrite, advance=advance)
    if dry_run and not as_json:
        print(f"would sample {samples} answers to each of {report.tasks:,} tasks")
        return
    rows = [[name, f"{count:,}", "kept" if name in settings.keep else "dropped"]
            for name, count in report.bands.items()]  # fmt: skip
    rows.append(["unscored", f"{report.unscored:,}", "dropped"])
    show(report, as_json, output=output, dry_run=dry_run,
         body=table(["band", "tasks", ""], rows), notes=notes_on(report))  # fmt: skip


def _components(reward: str) -> list[dict[str, Any]]:
    """What a recipe would say under `reward`; paths in a file are relative to that file."""
    if not reward.endswith((".yaml", ".yml")):
        return [{"function": reward}]
    from strop.cli.reward import reward_in

    found = reward_in(Path(reward), [])
    return [component.model_dump(mode="json", exclude_unset=True) for component in found.reward]


def notes_on(report: BandReport) -> list[str]:
    """What the counts mean for all tasks, with 95 % intervals."""
    notes = []
    scored = sum(report.bands.values())
    if report.pass_rate is not None:
        notes.append(f"pass rate {_shown(report.pass_rate)}")
    for k, found in report.pass_at.items():
        if k > 1:
            notes.append(f"solved by one of {k} answers: {_counted(found, scored)}")
    for k, found in report.informative.items():
        notes.append(f"whose {k} answers disagree: {_counted(found, scored)}")
    notes.append(f"a task of `never` may still have a pass rate of {report.hidden:.2f} (95 %)")
    if report.partly:
        notes.append(f"{report.partly:,} tasks have answers that could not be scored")
    notes += [f"{f.count:,} answers unscored by {f.component} ({f.kind}: {f.error})"
              for f in report.failures]  # fmt: skip
    return notes


def _shown(share: Share) -> str:
    return f"{share.mean:.3f} ({share.low:.3f} to {share.high:.3f})"


def _counted(share: Share, tasks: int) -> str:
    low, high = share.low * tasks, share.high * tasks
    return f"{share.mean * tasks:,.1f} tasks ({low:,.1f} to {high:,.1f})"
