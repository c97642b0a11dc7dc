"""`strop eval mine`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from strop.cli.options import AsJson, DryRun


def mine(
    files: Annotated[list[Path], typer.Argument(help="Production records (JSONL, Parquet).")],
    output: Annotated[Path, typer.Option(help="Folder of the golden set.")],
    by: Annotated[list[str], typer.Option(help="A column to stratify by; may be repeated.")] = [],  # noqa: B006
    per_stratum: Annotated[
        int | None, typer.Option(min=1, help="Items to keep of every stratum; default all.")
    ] = None,
    below: Annotated[float, typer.Option(help="A `score` below this is a failed task.")] = 0.5,
    seed: Annotated[int, typer.Option(help="Decides which items a quota keeps.")] = 0,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Turn thumbs down, edits and failed tasks into a frozen eval set with its suite.

    Personal data is not looked for: mine records that were cleaned of it.

    Example: strop eval mine production.jsonl --output golden --by topic --per-stratum 50
    """
    from strop.evals.golden.manifest import sources_of, write_golden
    from strop.evals.golden.mine import mine as mined_from

    mined = mined_from(files, by=by, per_stratum=per_stratum, below=below, seed=seed)
    if not dry_run:
        settings = {"by": by, "per_stratum": per_stratum, "below": below, "seed": seed}
        write_golden(mined, output, {**settings, "sources": sources_of(files)})
    unjudged = sum(row["judge"] is None for row in mined.tasks)
    found = {"tasks": len(mined.tasks), "pairs": len(mined.pairs), "unjudged": unjudged,
             "signals": mined.signals, "dropped": mined.dropped, "conflicts": mined.conflicts,
             "strata": mined.strata}  # fmt: skip
    if as_json:
        print(json.dumps(found | {"output": None if dry_run else str(output)}))
        return
    for line in _lines(found):
        print(f"  {line}")
    print(f"would write {output}" if dry_run else f"saved {output}")


def _lines(found: dict[str, Any]) -> list[str]:
    """What came of it, for a person."""
    kept = f"{found['tasks']} tasks and {found['pairs']} pairs"
    lines = [
        "records: " + ", ".join(f"{n} {name}" for name, n in found["signals"].items()),
        f"kept {kept}; dropped " + ", ".join(f"{n} {name}" for name, n in found["dropped"].items()),
    ]
    lines += [f"{name:<40} {n['kept']} of {n['found']}" for name, n in found["strata"].items()]
    if found["conflicts"]:
        lines.append(f"{found['conflicts']} duplicates disagree with the row that was kept on what "
                     "the right answer is: look at them")  # fmt: skip
    if found["unjudged"]:
        lines.append(f"{found['unjudged']} tasks have nothing to be judged by and are not in "
                     "the suite: add `answer`, `tests` or `schema`, or use a judge")  # fmt: skip
    return lines
