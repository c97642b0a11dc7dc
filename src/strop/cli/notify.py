"""`strop notify test`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strop.cli.options import AsJsonArray, Overrides

if TYPE_CHECKING:
    from collections.abc import Sequence

    from strop.recipe.notify import NotifyRecipe

app = typer.Typer(help="Try who is told of alarms, verdicts and ends.", no_args_is_help=True)


@app.callback()
def verbs() -> None:
    """Try who is told of alarms, verdicts and ends."""


@app.command("test")
def try_out(
    recipe: Annotated[
        Path, typer.Argument(help="A training recipe, a pipeline or a gate's policy (YAML).")
    ],
    overrides: Overrides = [],  # noqa: B006 - typer reads it, nobody writes it
    as_json: AsJsonArray = False,
) -> None:
    """Send a test message to everyone whom `notify` names, and say what came back.

    Exit code: 0 if all were told, else 1.

    Example: strop notify test dpo.yaml
    """
    from strop.errors import UsageError
    from strop.tracking.notify.receivers import send_test

    told, where = receivers(recipe, overrides)
    if not told:
        raise UsageError(f"`{where}` names nobody", where=str(recipe),
                         fix="give it a webhook or a command (docs/notify.md)")  # fmt: skip
    replies = send_test(told, recipe.stem, where)
    if as_json:
        print(json.dumps([asdict(reply) for reply in replies]))
    else:
        for reply in replies:
            outcome = "told" if reply.sent else "not told"
            print(f"{reply.name}: {outcome} after {reply.seconds:.2f} s: {reply.said}")
    raise typer.Exit(0 if all(reply.sent for reply in replies) else 1)


def receivers(path: Path, overrides: list[str]) -> tuple[Sequence[NotifyRecipe], str]:
    """Whom a file names, whatever it is the recipe of, and the key that names them."""
    from strop.recipe.gate import GateRules
    from strop.recipe.loading.load import load, load_recipe, read_source
    from strop.recipe.pipeline import Pipeline

    given: Any = read_source(path, overrides).values
    keys = set(given) if isinstance(given, dict) else set()
    if "stages" in keys:
        return load(Pipeline, path, overrides).notify, "notify"
    if keys & {"targets", "guardrails", "bands"}:
        return load(GateRules, path, overrides).notify, "notify"
    return load_recipe(path, overrides).run.notify, "run.notify"
