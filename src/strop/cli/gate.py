"""`strop gate`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strop.cli.options import AsJson, DryRun

if TYPE_CHECKING:
    from strop.recipe.gate import Policy
    from strop.types import Check, Verdict


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
    from strop.evals.gate.verdict import run_gate

    rules = _rules(policy, margin, base)
    verdict = run_gate(
        rules, base, candidate, None if dry_run else output,
        noise=noise, registry=None if dry_run else registry,
    )  # fmt: skip
    if as_json:
        print(json.dumps(asdict(verdict)))
    else:
        if rules.name is not None:
            print(f"policy {rules.name}")
        _show(verdict)
        if output is not None and not dry_run:
            print(f"saved {output} and {output.with_suffix('.html')}")
    raise typer.Exit(EXIT_CODES[verdict.name])


def _rules(policy: Path | None, margin: float | None, base: Path) -> Policy:
    from strop.errors import UsageError
    from strop.evals.drift import PREFIX
    from strop.evals.records import read_records
    from strop.recipe.gate import Guardrail, Policy
    from strop.recipe.loading.load import load

    if (policy is None) == (margin is None):
        raise UsageError("give exactly one of --policy and --margin")
    if policy is not None:
        return load(Policy, policy)
    if margin is None or not 0 < margin < 1:
        raise UsageError(f"--margin is {margin}", fix="give a number between 0 and 1")
    names = sorted({record.task for record in read_records(base)})
    scores = [name for name in names if not name.startswith(PREFIX)]
    return Policy(guardrails=[Guardrail(score=name, margin=margin) for name in scores])


def _show(verdict: Verdict) -> None:
    print(verdict.sentence)
    for remark in verdict.remarks:
        print(f"  note: {remark}")
    for check in verdict.checks:
        print(_line(check))
    for one in verdict.slices[:5]:
        print(
            f"  group     {f'{one.score} {one.column}={one.value}':<40} {one.estimate:+.3f} "
            f"[{one.low:+.3f}, {one.high:+.3f}] q {one.q_value:.3f}"
        )


def _line(check: Check) -> str:
    found = f"{check.estimate:+.3f} [{check.low:+.3f}, {check.high:+.3f}] bound {check.bound:+g}"
    if check.kind == "band":
        found = f"x{check.estimate:.3f} [{check.low:.3f}, {check.high:.3f}] within {check.bound:g}"
        found += f" to {check.upper:g}"
    line = f"  {check.kind:<9} {check.name:<24} {found} {check.verdict}"
    if check.lost is not None:
        line += f", {check.lost} lost {check.gained} gained"
    if check.verdict != "inconclusive":
        return line
    shown = "" if check.detectable is None else f"{check.n} items show {check.detectable:.3f}"
    needed = "no number of items would do" if not check.n_needed else f"{check.n_needed} would do"
    floor = "" if check.floor is None else f", noise floor {check.floor:.3f}"
    return f"{line}\n            {shown}; {needed}{floor}"
