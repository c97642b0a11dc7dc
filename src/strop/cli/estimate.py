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
    from strop.train.preflight.cost.hardware import Range
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
    as_json: AsJson = False,
) -> None:
    """Say what a run will take: memory, time and money, as ranges with their assumptions.

    Example: strop estimate grpo.yaml --hardware h100
    """
    from strop.cli.show import setup
    from strop.recipe.loading.load import load_recipe
    from strop.train.preflight.cost.estimate import estimate as run
    from strop.train.preflight.cost.hardware import hardware as found

    setup()
    loaded = load_recipe(recipe, overrides)
    device = found(hardware, hardware_file)
    result = run(loaded, workload(loaded), device)
    if as_json:
        print(json.dumps(result.plain()))
        return
    for line in lines(result):
        print(line)


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
