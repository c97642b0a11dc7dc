"""`strop eval SUITE`, and the verbs beside it: `strop eval mine`, `strop eval decode`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from strop.cli.evals.decode import decode
from strop.cli.evals.mine import mine
from strop.cli.options import AsJson, DryRun, Overrides

if TYPE_CHECKING:
    from strop.engines.engine import Engine
    from strop.evals.run import EvalResult

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
    from strop.evals.run import check_suite, run_suite
    from strop.recipe.loading.load import load
    from strop.recipe.suite import Suite

    setup()
    loaded = load(Suite, suite, overrides)
    engine = _engine(model, endpoint, outputs)
    if dry_run:
        for name, items in check_suite(loaded, engine).items():
            print(f"would measure {name}: {items} items")
        return
    with Counting(as_json) as counting:
        result = run_suite(loaded, engine, output, reference=reference, on_part=counting.advance)
    if as_json:
        said = {"scores": result.scores, "figures": result.figures, "kl": result.kl}
        print(json.dumps({**said, "output": str(output)}))
        return
    _show(result)
    print(f"saved {output}")


def _engine(model: str | None, endpoint: str | None, outputs: Path | None) -> Engine:
    from strop.engines.local.engine import LocalEngine
    from strop.engines.openai import OpenAIEngine
    from strop.engines.recorded import RecordedEngine
    from strop.errors import UsageError

    if outputs is not None:
        if model is not None or endpoint is not None:
            raise UsageError("--outputs are answers already given: drop --model and --endpoint")
        return RecordedEngine(str(outputs))
    if model is None:
        raise UsageError(
            "whom to measure?", fix="give --model FOLDER, --endpoint URL --model NAME, or --outputs"
        )
    return LocalEngine(model) if endpoint is None else OpenAIEngine(endpoint, model)


def _show(result: EvalResult) -> None:
    """Scores, then how the answers look."""
    unscored = dict.fromkeys(result.scores, 0)
    for record in result.records:
        unscored[record.task] = unscored.get(record.task, 0) + (record.score is None)
    for name, value in result.scores.items():
        missing = f"   {unscored[name]} not scored" if unscored[name] else ""
        print(f"  {name:<40} {value:.4f}{missing}")
    if result.kl is not None:
        print(f"  {'KL to reference, nats per token':<40} {result.kl:.4f}")
    for task, figures in result.figures.items():
        named = [f"{name} {value:.3g}" for name, value in figures.items()]
        print(f"  {task}")
        for first in range(0, len(named), 5):
            print(f"    {'  '.join(named[first : first + 5])}")
