"""`strop estimate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strop.cli.options import AsJson, Overrides

if TYPE_CHECKING:
    from strop.recipe.train.methods import Recipe
    from strop.train.preflight.cost.estimate import Estimate
    from strop.train.preflight.cost.hardware import Hardware, Range
    from strop.train.preflight.cost.split import Planner, Speeds, Split
    from strop.train.preflight.cost.workload import Workload


def estimate(
    recipe: Annotated[Path, typer.Argument(help="A training recipe (YAML).")],
    hardware: Annotated[
        str, typer.Option(metavar="NAME", help="A row of the hardware table, or this machine.")
    ] = "here",
    hardware_file: Annotated[
        Path | None, typer.Option(help="A hardware table of your own (TOML).")
    ] = None,
    overrides: Overrides = [],  # noqa: B006 - typer reads it, nobody writes it
    split: Annotated[
        bool, typer.Option("--split", help="Say how many GPUs sample and how many train.")
    ] = False,
    gpus: Annotated[
        str, typer.Option(metavar="N,N", help="With --split: GPUs in all, 2 to 1024.")
    ] = "",
    max_staleness: Annotated[
        int | None,
        typer.Option(min=0, help="With --split: updates that answers may lag. [as the recipe]"),
    ] = None,
    network: Annotated[
        float | None, typer.Option(min=0.01, help="With --split: GB/s that a GPU sends. [50]")
    ] = None,
    sampling: Annotated[
        float | None,
        typer.Option(
            "--sampling-tokens-per-second",
            min=1e-3,
            help="With --split: answer tokens that one GPU samples.",
        ),
    ] = None,
    training: Annotated[
        float | None,
        typer.Option(
            "--training-tokens-per-second",
            min=1e-3,
            help="With --split: answer tokens that one GPU trains on.",
        ),
    ] = None,
    measured: Annotated[
        Path | None, typer.Option(metavar="RUN", help="With --split: a run on one such GPU.")
    ] = None,
    beside: Annotated[
        Path | None,
        typer.Option("--measured-beside", metavar="RUN", help="With --measured: an async run."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a run will take: memory, time and money, as ranges with their assumptions.

    Example: strop estimate grpo.yaml --hardware h100

    Example: strop estimate grpo.yaml --hardware h100 --split --gpus 8,64
    """
    from strop.cli.show import setup
    from strop.recipe.loading.load import load_recipe
    from strop.train.pin import pinned
    from strop.train.preflight.cost.estimate import estimate as run
    from strop.train.preflight.cost.hardware import hardware as found

    setup()
    if not split:
        expect_no_split({
            "--gpus": gpus or None, "--max-staleness": max_staleness, "--network": network,
            "--sampling-tokens-per-second": sampling, "--training-tokens-per-second": training,
            "--measured": measured, "--measured-beside": beside,
        })  # fmt: skip
    loaded = pinned(load_recipe(recipe, overrides), force=True, weights=False)
    device = found(hardware, hardware_file)
    if split:
        counts = gpus_of(gpus)
        speeds = speeds_of(network, sampling, training, measured, beside)
        model, work = modelled(loaded, device, speeds)
        staleness = staleness_of(loaded) if max_staleness is None else max_staleness
        print_splits(model, work, counts, staleness, as_json)
        return
    result = run(loaded, workload(loaded), device)
    if as_json:
        print(json.dumps(result.plain()))
        return
    print("\n".join(lines(result)))


def expect_no_split(options: dict[str, object]) -> None:
    """Raise `UsageError` for the first of a split's options that was given."""
    from strop.errors import UsageError

    given = [name for name, value in options.items() if value is not None]
    if given:
        raise UsageError(f"{given[0]} says nothing without --split", fix="add --split")


def staleness_of(recipe: Recipe) -> int:
    """That of the recipe's source; 1 where it samples and trains in turn."""
    from strop.recipe.train.online import OnlineRecipe
    from strop.recipe.train.source import AsynchronousRecipe

    source = recipe.rollout.source if isinstance(recipe, OnlineRecipe) else None
    return source.max_staleness if isinstance(source, AsynchronousRecipe) else 1


def workload(recipe: Recipe) -> Workload:
    """From the data, where model and data are there; else assumed."""
    from strop.model.load import holds_weights
    from strop.train.preflight.cost.workload import assumed_workload, workload_of
    from strop.train.preflight.prepare import prepare

    if not holds_weights(Path(recipe.model.path)):
        return assumed_workload(recipe)
    prepared = prepare(recipe, resume=False, overwrite=True, force=True, dry_run=True)
    return workload_of(prepared)


def lines(result: Estimate) -> list[str]:
    """The estimate for a terminal."""
    from strop.train.preflight.cost.estimate import parts_lines

    device, duration = result.hardware, result.duration
    memory, hours, cost = result.memory_gib, result.hours, result.cost
    held = "fits" if result.fits else "does not fit"
    said = [
        f"{result.shape.parameters:,} parameters, {result.workload.steps:,} steps: {device.name}",
        f"memory  {_range(memory, 'GiB')}: {held} in {device.memory_gib:.1f} GiB",
        f"        {', '.join(parts_lines(result.memory.parts))}",
        f"time    {_time(hours)}; a step {_seconds(duration.training)} training"
        + (f", {_seconds(duration.sampling)} sampling" if result.workload.answers else ""),
    ]
    if device.price.high:
        said.append(f"cost    {_range(cost, 'dollars')}")
    said += [
        f"change  {one.change}: {one.memory_gib:.2f} GiB, {'fits' if one.fits else 'does not fit'}"
        for one in result.changes
    ]
    return [*said, *(f"assumed {one}" for one in result.assumptions)]


def _range(value: Range, unit: str) -> str:
    return f"{value.likely:.2f} {unit} ({value.low:.2f} to {value.high:.2f})"


def _time(hours: Range) -> str:
    if hours.likely < 1:
        return _range(hours.times(60), "minutes")
    return _range(hours, "hours")


def _seconds(value: Range) -> str:
    return f"{value.likely:.3g} s ({value.low:.3g} to {value.high:.3g})"


def gpus_of(text: str) -> list[int]:
    """`"8,64"`; raises `UsageError` for anything that is no list of counts."""
    from strop.errors import UsageError
    from strop.train.preflight.cost.split import FEWEST, MOST

    counts = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if not all(FEWEST <= count <= MOST for count in counts):
        said = f"--gpus {text} is no number of GPUs" if text else "--split needs --gpus"
        raise UsageError(said, fix=f"give {FEWEST} to {MOST}, several with commas: --gpus 8,64")
    return counts


def speeds_of(
    network: float | None,
    sampling: float | None,
    training: float | None,
    run: Path | None,
    beside: Path | None,
) -> Speeds:
    from strop.errors import UsageError
    from strop.train.preflight.cost.measured import measured, slowed
    from strop.train.preflight.cost.split import NETWORK, Speeds

    if run is None and beside is not None:
        raise UsageError("--measured-beside is compared with a run in turn",
                         fix="give that with --measured")  # fmt: skip
    alone = None if run is None else measured(run)
    slower = slowed(beside, alone) if beside is not None and alone is not None else None
    return Speeds(network or NETWORK, sampling, training, alone, slower)


def modelled(recipe: Recipe, device: Hardware, speeds: Speeds) -> tuple[Planner, Workload]:
    """The model of a recipe that samples; others are refused before their data is read."""
    from strop.train.preflight.cost.split import expect_split, planner

    work = workload(expect_split(recipe, device))
    return planner(recipe, work, device, speeds), work


def print_splits(
    model: Planner, work: Workload, counts: list[int], staleness: int, as_json: bool
) -> None:
    from strop.train.preflight.cost.split import assumptions, plan

    splits = [one for count in counts for one in plan(model, count, staleness)]
    assumed = list(assumptions(model, work))
    if as_json:
        plain = {"hardware": model.device.name, "splits": [one.plain() for one in splits],
                 "assumptions": assumed}  # fmt: skip
        print(json.dumps(plain))
        return
    print(f"{model.device.name}, {model.steps:,} steps")
    print(SPLIT_HEADING)
    for one in splits:
        print(split_line(one))
    for count in counts:
        best = max((one for one in splits if one.gpus == count), key=lambda one: one.times)
        print(f"{count} GPUs: {said_split(best)}")
    for line in assumed:
        print(f"assumed {line}")


def said_split(one: Split) -> str:
    """The advice of a plan."""
    if one.placement == "in turn":
        return "in turn is fastest: all sample, then all train"
    faster = f"{one.times:.2f} times as fast as in turn"
    return f"{one.generating} sample and {one.training} train, {faster}"


def _dollars(value: float) -> str:
    """`12,345`; below 100 three digits that count: `0.0042`."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


SPLIT_HEADING = (
    "  GPUs  way                  sample   train  tensor    step, s"
    "  idle: sample  train  times   dollars"
)


def split_line(one: Split) -> str:
    """At most 100 columns: `    64  apart, staleness 1        40      24       2 ...`."""
    way = one.placement if one.placement == "in turn" else f"apart, staleness {one.staleness}"
    idle = (one.period.generator_idle, one.period.trainer_idle)
    return (
        f"{one.gpus:6}  {way:<19} {one.generating:7} {one.training:7} {one.tensor:7}"
        f" {one.period.seconds:10.4g} {idle[0]:13.0%} {idle[1]:6.0%} {one.times:6.2f}"
        f" {_dollars(one.dollars):>9}"
    )
