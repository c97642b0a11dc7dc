"""`strop registry list | show | promote | rollback`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strop.cli.options import AsJson

if TYPE_CHECKING:
    from strop.registry.store import Entry

app = typer.Typer(help="What was promoted, from what, and why.", no_args_is_help=True)
Store = Annotated[Path, typer.Option("--registry", help="The registry file.")]


@app.command("list")
def list_entries(registry: Store = Path("registry.db"), as_json: AsJson = False) -> None:
    """Names with their current entry, and every event.

    Example: strop registry list --registry strop-demo/registry.db
    """
    from strop.registry.store import Registry

    store = Registry(registry)
    current = {name: store.current(name) for name in store.names()}
    if as_json:
        found = {name: asdict(entry) for name, entry in current.items() if entry}
        events = [asdict(event) for event in store.events()]
        print(json.dumps({"current": found, "events": events}))
        return
    for name, entry in current.items():
        print(f"{name}: {entry.id if entry else 'nothing'}")
        for event in store.events(name):
            reason = f"  ({event.reason})" if event.reason else ""
            print(f"  {event.at}  {event.action:<9} {event.entry}  by {event.who}{reason}")


@app.command("show")
def show(
    which: Annotated[str, typer.Argument(help="Entry id, the start of one, or a name.")],
    registry: Store = Path("registry.db"),
    as_json: AsJson = False,
) -> None:
    """One entry with its whole ancestry and its verdict.

    Example: strop registry show algebra --registry strop-demo/registry.db
    """
    from strop.registry.lineage import generations
    from strop.registry.store import Registry

    entry = Registry(registry).entry(which)
    if as_json:
        print(json.dumps(asdict(entry)))
        return
    print(f"entry    {entry.id}\nweights  {entry.weights}\npath     {entry.path}")
    print(f"verdict  {entry.verdict['sentence'] if entry.verdict else 'overridden'}")
    for depth, made in enumerate(generations(entry.lineage)):
        by = f"  {made['method']} on {_data(made['data'])}" if "method" in made else ""
        print(f"{'  ' * depth}{'`- ' if depth else ''}{made['model']}{by}")


@app.command("promote")
def promote(
    model: Annotated[Path, typer.Argument(help="The model folder.")],
    entry: Annotated[str, typer.Option(help="The name to promote it under.")],
    verdict: Annotated[Path | None, typer.Option(help="verdict.json of the gate.")] = None,
    override: Annotated[
        str | None, typer.Option(help="Promote without a pass; the reason is recorded.")
    ] = None,
    registry: Store = Path("registry.db"),
    as_json: AsJson = False,
) -> None:
    """Make a model the current one of a name; refused without a pass for exactly its weights.

    Example: strop registry promote runs/dpo/final --entry algebra --verdict gates/dpo.json
    """
    from strop.errors import UsageError
    from strop.evals.verdict import read_verdict
    from strop.model.load import weights_hash
    from strop.registry.lineage import ancestry
    from strop.registry.store import Registry

    if not model.is_dir():
        raise UsageError("no such model folder", where=str(model))
    made = Registry(registry).promote(
        entry,
        weights=weights_hash(model),
        path=str(model.resolve()),
        lineage=ancestry(model.resolve()),
        verdict=read_verdict(verdict) if verdict else None,
        override=override,
    )
    _said(made, f"{entry} is now {made.id}", as_json)


@app.command("rollback")
def rollback(
    name: Annotated[str, typer.Argument(help="The name to take back one promotion.")],
    reason: Annotated[str | None, typer.Option(help="Why; recorded.")] = None,
    registry: Store = Path("registry.db"),
    as_json: AsJson = False,
) -> None:
    """Make the entry before the current one current again.

    Example: strop registry rollback algebra --reason "slow answers"
    """
    from strop.registry.store import Registry

    made = Registry(registry).rollback(name, reason)
    _said(made, f"{name} is {made.id} again", as_json)


def _said(entry: Entry, sentence: str, as_json: bool) -> None:
    print(json.dumps(asdict(entry)) if as_json else sentence)


def _data(sources: list[dict[str, str]]) -> str:
    return ", ".join(f"{Path(source['path']).name} ({source['sha256'][:8]})" for source in sources)
