"""The gate between files: eval folders (or plain score files) in, `verdict.json` out."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from strop.errors import DataError
from strop.evals.gate import gate
from strop.evals.records import read_records
from strop.evals.run import read_summary
from strop.recipe.eval import Policy
from strop.types import Verdict


def run_gate(
    policy: Policy, base: str | Path, candidate: str | Path, output: str | Path | None = None
) -> Verdict:
    """Judge candidate against base; with `output`, write the verdict with the weights it is for."""
    verdict = gate(read_records(base), read_records(candidate), policy)
    if output is not None:
        written = {
            **asdict(verdict),
            "policy": policy.plain(),
            "base": _model_of(base),
            "candidate": _model_of(candidate),
        }
        path = Path(output)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(written, indent=1) + "\n")
    return verdict


def read_verdict(path: str | Path) -> dict[str, Any]:
    """A written verdict; raises `DataError` for anything else."""
    try:
        verdict = json.loads(Path(path).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise DataError(f"cannot read the verdict: {error}", where=str(path)) from None
    if not isinstance(verdict, dict) or "name" not in verdict:
        raise DataError(
            "not a verdict", where=str(path), fix="write one with `strop gate --output`"
        )
    return verdict


def _model_of(folder: str | Path) -> dict[str, Any] | None:
    """Path and weights hash of the model that was measured, where the scores say so."""
    summary = read_summary(folder)
    return None if summary is None else summary["model"]
