"""`strop eval SUITE`, and the verbs beside it: `strop eval mine`, `strop eval decode`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from strop.cli.evals.decode import decode
from strop.cli.evals.mine import mine
from strop.cli.options import AsJson, DryRun, Overrides, Servers, asking

SUITE = "suite"


class SuiteByDefault(TyperGroup):
    """`strop eval suite.yaml` means `strop eval suite suite.yaml`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        plain = [arg for arg in args[:1] if arg not in ("--help", *self.commands)]
        return super().parse_args(ctx, [SUITE, *args] if plain else args)


app = typer.Typer(
    cls=SuiteByDefault,
    help="Measure a model on a suite, mine one, or study decoding.\n\n"
    "Example: strop eval suite.yaml --model runs/sft/final --output evals/sft",
    no_args_is_help=True,
)
app.command("mine")(mine)
app.command("decode")(decode)


@app.command(SUITE)
def evaluate(
    suite: Annotated[Path, typer.Argument(help="A suite (YAML).")],
    output: Annotated[Path, typer.Option(help="Folder for records.jsonl and summary.json.")],
    model: Annotated[
        str | None, typer.Option(help="Model folder or hub name; with --endpoint its name there.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="Ask an OpenAI-compatible server: http://host:port/v1.")
    ] = None,
    engine: Servers = [],  # noqa: B006
    outputs: Annotated[
        Path | None, typer.Option(help="Judge recorded answers (JSONL) instead of asking.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Also measure KL and displacement against this model.")
    ] = None,
    overrides: Overrides = [],  # noqa: B006 - typer reads it, nobody writes it
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Measure a model on a suite, keeping every item's score. An interrupted eval goes on.

    Example: strop eval suite.yaml --model runs/sft/final --output evals/sft
    """
    from strop.cli.show import Counting, setup
    from strop.evals.ask import find_engine
    from strop.evals.run import check_suite, run_suite
    from strop.recipe.loading.load import load
    from strop.recipe.suite import Suite
    from strop.results import EvalResult

    setup()
    loaded = load(Suite, suite, [*overrides, *asking(engine)])
    recorded = None if outputs is None else str(outputs)
    asked = find_engine(model, endpoint, recorded, loaded.engine)
    if dry_run:
        for name, items in check_suite(loaded, asked).items():
            print(f"would measure {name}: {items} items")
        return
    with Counting(as_json) as counting:
        result = run_suite(loaded, asked, output, reference=reference, on_part=counting.advance)
    if as_json:
        said = {"scores": result.scores, "figures": result.figures, "kl": result.kl}
        print(json.dumps({**said, "output": str(output)}))
        return
    print(EvalResult(output))
    print(f"saved {output}")
