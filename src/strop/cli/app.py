"""All verbs in one place."""

from __future__ import annotations

import typer

from strop.cli import demo, doctor, gate, reward, run, train
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
app.command("demo")(demo.demo)
app.command("train")(train.train)
app.command("run")(run.run)
app.command("gate")(gate.gate)
app.add_typer(suite.app, name="eval")
app.add_typer(reward.app, name="reward")
app.add_typer(registry.app, name="registry")
app.command("doctor")(doctor.doctor)
