"""`strop registry`: what moves a name, and the table of its verbs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strop.cli.options import AsJson, DryRun
from strop.cli.registry import files, push, read
from strop.cli.registry.read import HERE, Store

if TYPE_CHECKING:
    from strop.registry.records import Entry

app = typer.Typer(help="What was promoted, from what, and why.", no_args_is_help=True)
app.command("list")(read.list_entries)
app.command("show")(read.show)
app.command("diff")(read.diff)
app.command("attempts")(read.attempts)
app.command("card")(read.card)
app.command("verify")(files.verify)
app.command("checkout")(files.checkout)
app.command("export")(files.export)
app.command("import")(files.import_entry)
app.command("push")(push.push)
app.command("gc")(files.gc)
app.command("rebuild")(files.rebuild)


@app.command("promote")
def promote(
    model: Annotated[Path, typer.Argument(help="The model folder.")],
    entry: Annotated[str, typer.Option(help="The name to promote it under.")],
    verdict: Annotated[Path | None, typer.Option(help="verdict.json of the gate.")] = None,
    override: Annotated[
        str | None, typer.Option(help="Promote without a pass; the reason is recorded.")
    ] = None,
    registry: Store = HERE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make a model the current one of a name; refused without a pass for exactly its weights.

    Example: strop registry promote runs/dpo/final --entry algebra --verdict gates/dpo.json
    """
    from strop.evals.gate.promote import promote as promoted

    found = promoted(
        model, entry, verdict=verdict, registry=registry, override=override, dry_run=dry_run
    )
    _said(found, f"{entry} {'would be' if dry_run else 'is now'} {found.id}", as_json)


@app.command("rollback")
def rollback(
    name: Annotated[str, typer.Argument(help="The name to take back one promotion.")],
    reason: Annotated[str | None, typer.Option(help="Why; recorded.")] = None,
    registry: Store = HERE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make the entry before the current one current again.

    Example: strop registry rollback algebra --reason "slow answers"
    """
    from strop.registry.store import Registry

    store = Registry(registry)
    if dry_run:
        found = store.before(name)
        _said(found, f"{name} would be {found.id} again", as_json)
        return
    found = store.rollback(name, reason)
    _said(found, f"{name} is {found.id} again", as_json)


def _said(entry: Entry, sentence: str, as_json: bool) -> None:
    print(json.dumps(asdict(entry)) if as_json else sentence)
