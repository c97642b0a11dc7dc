"""`strop gate`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from strop.cli.options import AsJson


def gate(
    base: Annotated[Path, typer.Option(help="Eval folder or JSONL of the current model.")],
    candidate: Annotated[Path, typer.Option(help="Eval folder or JSONL of the new model.")],
    policy: Annotated[Path | None, typer.Option(help="Targets and guardrails (YAML).")] = None,
    margin: Annotated[
        float | None, typer.Option(help="No policy: no score may fall by more than this.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write the verdict here (JSON).")] = None,
    as_json: AsJson = False,
) -> None:
    """Decide whether a candidate may replace its base.

    Exit code: 0 pass, 10 regressed, 11 inconclusive, 12 missing evidence.

    Example: strop gate --base evals/sft --candidate evals/dpo --policy policy.yaml
    """
    from strop.errors import UsageError
    from strop.evals.gate import EXIT_CODES
    from strop.evals.records import read_records
    from strop.evals.verdict import run_gate
    from strop.recipe.eval import Guardrail, Policy
    from strop.recipe.load import load

    if (policy is None) == (margin is None):
        raise UsageError("give exactly one of --policy and --margin")
    if policy is not None:
        rules = load(Policy, policy)
    else:
        if margin is None or not 0 < margin < 1:
            raise UsageError(f"--margin is {margin}", fix="give a number between 0 and 1")
        names = sorted({record.task for record in read_records(base)})
        rules = Policy(guardrails=[Guardrail(score=name, margin=margin) for name in names])
    verdict = run_gate(rules, base, candidate, output)
    if as_json:
        print(json.dumps(asdict(verdict)))
    else:
        print(verdict.sentence)
        for check in verdict.checks:
            needed = f"  would take {check.n_needed} items" if check.n_needed else ""
            print(
                f"  {check.kind:<9} {check.name:<28} {check.estimate:+.3f} "
                f"[{check.low:+.3f}, {check.high:+.3f}] bound {check.bound:+.3f} "
                f"{check.verdict}{needed}"
            )
    raise typer.Exit(EXIT_CODES[verdict.name])
