"""`strop train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from strop.cli.options import AsJsonLines, DryRun, Overrides


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
    dry_run: DryRun = False,
    as_json: AsJsonLines = False,
) -> None:
    """Train a model from a recipe.

    Example: strop train sft.yaml --set optim.learning_rate=1e-5
    """
    from strop.cli.show import Progress, checks_line, setup
    from strop.errors import UsageError
    from strop.recipe.loading.load import load_recipe, read_yaml
    from strop.train.preflight.prepare import prepare
    from strop.train.preflight.settings import line, settings
    from strop.train.run import train as run

    setup()
    loaded = load_recipe(recipe, overrides)
    if dry_run:
        if profile is not None:
            raise UsageError("--dry-run runs no step to profile", fix="pass one of the two")
        prepared = prepare(
            loaded,
            resume=resume or force_resume or resume_from is not None,
            overwrite=overwrite,
            force=force,
            force_resume=force_resume,
            dry_run=True,
        )
        plan = {"output": str(prepared.folder), "steps": prepared.total_steps, **prepared.checks}
        found = settings(loaded, read_yaml(recipe, overrides), overrides, prepared)
        if as_json:
            told = {one.key: {"value": one.value, "from": one.source} for one in found}
            read = [source.plain() for source in prepared.sources]
            print(json.dumps({**plan, "sources": read, "settings": told}))
            return
        for source in prepared.sources:
            print(f"read {source.line()}")
        print(f"would train: {checks_line(plan)}")
        for one in found:
            print(line(one, max(len(other.key) for other in found)))
        return
    with Progress(as_json) as progress:
        final = run(
            loaded,
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
    done = "saved" if progress.begun else "nothing to do, the run is finished:"
    outcome = {"final": str(final), "finished_before": not progress.begun}
    print(json.dumps(outcome) if as_json else f"{done} {final}")
