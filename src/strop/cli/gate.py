"""`strop gate`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from strop.cli.options import AsJson, DryRun


def gate(
    base: Annotated[Path, typer.Option(help="Eval folder or JSONL of the current model.")],
    candidate: Annotated[Path, typer.Option(help="Eval folder or JSONL of the new model.")],
    policy: Annotated[Path | None, typer.Option(help="Targets and guardrails (YAML).")] = None,
    margin: Annotated[
        float | None, typer.Option(help="No policy: no score may fall by more than this.")
    ] = None,
    noise: Annotated[
        list[Path],
        typer.Option(help="Eval of a model that differs by nothing that matters; may be repeated."),
    ] = [],  # noqa: B006 - typer reads it, nobody writes it
    output: Annotated[
        Path | None, typer.Option(help="Write the verdict here (JSON), and a page (.html) beside.")
    ] = None,
    registry: Annotated[Path, typer.Option(help="Every attempt is recorded here.")] = Path(
        "registry.db"
    ),
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Decide whether a candidate may replace its base.

    Exit code: 0 pass, 10 regressed, 11 inconclusive, 12 missing evidence.

    Example: strop gate --base evals/sft --candidate evals/dpo --policy policy.yaml
    """
    from strop.evals.gate import EXIT_CODES
    from strop.evals.gate.verdict import rules_of, run_gate
    from strop.results import GateResult

    rules = rules_of(policy, margin, base)
    verdict = run_gate(
        rules, base, candidate, None if dry_run else output,
        noise=noise, registry=None if dry_run else registry,
    )  # fmt: skip
    if as_json:
        print(json.dumps(asdict(verdict)))
    else:
        print(GateResult(verdict, rules.name, output))
        if output is not None and not dry_run:
            print(f"saved {output} and {output.with_suffix('.html')}")
    raise typer.Exit(EXIT_CODES[verdict.name])
