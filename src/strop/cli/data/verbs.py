"""`strop data` and its verbs."""

from __future__ import annotations

import typer

from strop.cli.data import (
    balance,
    band,
    build,
    check,
    clean,
    mapping,
    mix,
    sample,
    select,
    split,
    traffic,
)
from strop.cli.data.generate import verbs as generate

app = typer.Typer(
    help="From raw production files to records worth training on.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("build")(build.build)
app.command("clean")(clean.clean)
app.command("check")(check.check)
app.command("stats")(check.stats)
app.add_typer(generate.app, name="generate")
app.command("select")(select.select)
app.command("band")(band.band)
app.command("balance")(balance.balance)
app.command("split")(split.split)
app.command("map")(mapping.map_records)
app.command("mix")(mix.mix)
app.command("sample")(sample.sample)
app.command("traffic")(traffic.traffic)
