"""All verbs in one place."""

from __future__ import annotations

from typing import Annotated

import typer

from strop import __version__
from strop.cli import (
    advise,
    blend,
    demo,
    doctor,
    elsewhere,
    engine,
    estimate,
    gate,
    gguf,
    judge,
    merge,
    notify,
    reward,
    run,
    serve,
    story,
    studio,
    sweep,
    train,
)
from strop.cli.data import verbs as data
from strop.cli.evals import suite
from strop.cli.registry import verbs as registry

app = typer.Typer(
    name="strop",
    help="The last 20 % of a language model's quality: preference and reinforcement training, "
    "proven before it is promoted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def print_version(asked: bool) -> None:
    """Print the version and end, before anything else of the command line is looked at."""
    if asked:
        print(f"strop {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=print_version, is_eager=True),
    ] = False,
) -> None:
    """What may stand before a verb."""


app.command("demo")(demo.demo)
app.command("train")(train.train)
app.command("run")(run.run)
app.command("sweep")(sweep.sweep)
app.command("show")(story.show)
app.command("gate")(gate.gate)
app.add_typer(suite.app, name="eval")
app.add_typer(data.app, name="data")
app.add_typer(reward.app, name="reward")
app.add_typer(judge.app, name="judge")
app.add_typer(engine.app, name="engine")
app.command("serve")(serve.serve)
app.command("studio")(studio.studio)
app.add_typer(registry.app, name="registry")
app.add_typer(notify.app, name="notify")
app.command("merge")(merge.merge)
app.command("blend")(blend.blend)
app.command("export-gguf")(gguf.export_gguf)
app.command("advise")(advise.advise)
app.command("estimate")(estimate.estimate)
app.command("export-recipe")(elsewhere.export_recipe)
app.command("import-recipe")(elsewhere.import_recipe)
app.command("doctor")(doctor.doctor)
