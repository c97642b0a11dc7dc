"""`strop train`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strop.cli.options import AsJsonLines, DryRun, Overrides

if TYPE_CHECKING:
    from collections.abc import Sequence

    from strop.recipe.train.methods import Recipe
    from strop.train.preflight.prepared import Prepared
    from strop.train.preflight.settings import Setting


JOINED_WITHIN = 60.0
"""Seconds in which the processes meet to say once that the recipe cannot be read."""


SHOWN = 2000
"""Characters of the first prompt that a dry run shows."""


def without_nproc(arguments: list[str]) -> list[str]:
    """The same command for one of the processes."""
    kept = list(arguments)
    while "--nproc" in kept:
        place = kept.index("--nproc")
        del kept[place : place + 2]
    return [argument for argument in kept if not argument.startswith("--nproc=")]


def train(
    recipe: Annotated[Path, typer.Argument(help="A training recipe (YAML).")],
    overrides: Overrides = [],  # noqa: B006 - typer reads it, nobody writes it
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint.")] = False,
    resume_from: Annotated[
        Path | None,
        typer.Option(metavar="CHECKPOINT", help="Go on from this checkpoint; drop later ones."),
    ] = None,
    force_resume: Annotated[
        bool, typer.Option(help="Go on although recipe, data or model changed; it is recorded.")
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Delete an earlier run in `output`.")] = False,
    force: Annotated[bool, typer.Option(help="Accept a recipe that is merely reckless.")] = False,
    profile: Annotated[
        int | None,
        typer.Option(metavar="N", help="Time N steps and trace one more: <output>/profile/."),
    ] = None,
    nproc: Annotated[
        int, typer.Option(metavar="N", min=1, help="Start N processes that train together.")
    ] = 1,
    dry_run: DryRun = False,
    as_json: AsJsonLines = False,
) -> None:
    """Train a model from a recipe.

    Example: strop train sft.yaml --set optim.learning_rate=1e-5
    """
    from strop.distributed.launch import end_with_parent, launch

    if nproc > 1 and not dry_run:
        raise typer.Exit(launch(without_nproc(sys.argv[1:]), nproc))
    from strop.cli.show import Progress, setup
    from strop.distributed.processes import join, leave
    from strop.errors import UsageError
    from strop.recipe.loading.load import located, read_yaml
    from strop.train.pin import pinned
    from strop.train.preflight.prepare import prepare
    from strop.train.preflight.settings import settings
    from strop.train.run import train as run

    setup()
    loaded = read_once(recipe, overrides)
    source = read_yaml(recipe, overrides)
    if dry_run:
        if profile is not None:
            raise UsageError("--dry-run runs no step to profile", fix="pass one of the two")
        with located(source):
            loaded = pinned(loaded, force=force)
            prepared = prepare(
                loaded,
                resume=resume or force_resume or resume_from is not None,
                overwrite=overwrite,
                force=force,
                force_resume=force_resume,
                dry_run=True,
            )
        tell_plan(prepared, settings(loaded, source, overrides, prepared), as_json)
        return
    end_with_parent()
    world = join(loaded.run.distributed.timeout)
    with located(source), Progress(as_json) as progress:
        final = run(
            loaded,
            world=world,
            resume=resume,
            resume_from=resume_from,
            force_resume=force_resume,
            overwrite=overwrite,
            force=force,
            profile=profile,
            on_start=progress.start,
            on_step=progress.step,
            on_profile=progress.profile,
        )
    leave(world)
    if world.rank:
        return
    done = "saved" if progress.begun else "nothing to do, the run is finished:"
    outcome = {"final": str(final), "finished_before": not progress.begun}
    print(json.dumps(outcome) if as_json else f"{done} {final}")


def read_once(path: Path, overrides: list[str]) -> Recipe:
    """The recipe of a file; what is wrong with it is said by one of several processes."""
    from strop.distributed.processes import join
    from strop.errors import UsageError
    from strop.recipe.loading.load import load_recipe

    try:
        return load_recipe(path, overrides)
    except UsageError:
        with join(JOINED_WITHIN).together():
            raise


def _tools(prepared: Prepared) -> Sequence[Any]:
    """The tools that the prompts of an environment show, as JSON schemas."""
    from strop.train.preflight.prepared import PreparedOnline

    shown = prepared.way if isinstance(prepared, PreparedOnline) else None
    return shown.tools or () if shown else ()


def _first_prompt(prepared: Prepared) -> str | None:
    from strop.train.preflight.prepared import PreparedOnline

    return prepared.first_prompt if isinstance(prepared, PreparedOnline) else None


def tell_plan(prepared: Prepared, found: Sequence[Setting], as_json: bool) -> None:
    """Say what would be trained, and where each setting comes from."""
    from strop.cli.show import checks_line
    from strop.train.preflight.settings import line

    plan = {"output": str(prepared.folder), "steps": prepared.total_steps, **prepared.checks}
    if as_json:
        told = {one.key: {"value": one.value, "from": one.source} for one in found}
        read = [source.plain() for source in prepared.sources]
        begun = {"tools": _tools(prepared), "first_prompt": _first_prompt(prepared)}
        known = {name: value for name, value in begun.items() if value}
        print(json.dumps({**plan, "sources": read, "settings": told, **known}))
        return
    for source in prepared.sources:
        print(f"read {source.line()}")
    print(f"would train: {checks_line(plan)}")
    names = [tool["function"]["name"] for tool in _tools(prepared)]
    if names:
        print(f"tools: {', '.join(names)}")
    prompt = _first_prompt(prepared)
    if prompt:
        more = f" ... ({len(prompt) - SHOWN} characters more)" if len(prompt) > SHOWN else ""
        print(f"first prompt: {prompt[:SHOWN]!r}{more}")
    for one in found:
        print(line(one, max(len(other.key) for other in found)))
