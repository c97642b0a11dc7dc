"""`strop eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from strop.cli.options import AsJson, DryRun, Overrides


def evaluate(
    suite: Annotated[Path, typer.Argument(help="A suite (YAML).")],
    model: Annotated[str, typer.Option(help="Model folder or hub name.")],
    output: Annotated[Path, typer.Option(help="Folder for records.jsonl and summary.json.")],
    reference: Annotated[
        str | None, typer.Option(help="Also measure the KL to this model.")
    ] = None,
    overrides: Overrides = [],  # noqa: B006 - typer reads it, nobody writes it
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Measure a model on a suite, keeping every item's score.

    Example: strop eval suite.yaml --model runs/sft/final --output evals/sft
    """
    from strop.cli.show import setup
    from strop.evals.run import run_suite
    from strop.recipe.eval import Suite
    from strop.recipe.load import load

    setup()
    loaded = load(Suite, suite, overrides)
    if dry_run:
        print(f"would run {', '.join(task.name for task in loaded.tasks)} on {model}")
        return

    def done(name: str) -> None:
        if not as_json:
            print(f"  {name} done", flush=True)

    result = run_suite(loaded, model, output, reference=reference, advance=done)
    if as_json:
        print(json.dumps({"scores": result.scores, "kl": result.kl, "output": str(output)}))
        return
    for name, value in result.scores.items():
        print(f"  {name:<40} {value:.4f}")
    if result.kl is not None:
        print(f"  {'KL to reference, nats per token':<40} {result.kl:.4f}")
    print(f"saved {output}")
