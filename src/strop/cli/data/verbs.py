"""`strop data` and its verbs."""

from __future__ import annotations

import typer

from strop.cli.data import build, check
from strop.cli.data.generate import verbs as generate

app = typer.Typer(
    help="From raw production files to records worth training on.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("build")(build.build)
app.command("check")(check.check)
app.command("stats")(check.stats)
app.add_typer(generate.app, name="generate")
