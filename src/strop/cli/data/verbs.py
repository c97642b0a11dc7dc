"""`strop data` and its verbs."""

from __future__ import annotations

import typer

from strop.cli.data.generate import verbs as generate

app = typer.Typer(
    help="From raw production files to records worth training on.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(generate.app, name="generate")
