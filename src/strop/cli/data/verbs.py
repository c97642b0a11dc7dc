"""`strop data` and its verbs."""

from __future__ import annotations

import typer

from strop.cli.data import balance, band, mix, sample, select, split

app = typer.Typer(
    help="From raw production files to records worth training on.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

app.command("select")(select.select)
app.command("band")(band.band)
app.command("balance")(balance.balance)
app.command("split")(split.split)
app.command("mix")(mix.mix)
app.command("sample")(sample.sample)
