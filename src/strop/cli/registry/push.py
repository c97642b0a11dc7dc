"""`strop registry push`: an entry on the hub."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from strop.cli.options import AsJson, DryRun
from strop.cli.registry.read import HERE, Store, Which

if TYPE_CHECKING:
    from strop.registry.transfer.push import Push


def push(
    which: Which,
    name: Annotated[str, typer.Argument(metavar="ORG/NAME", help="A repository of the hub.")],
    public: Annotated[bool, typer.Option("--public", help="Not private, as it is else.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Replace the model files of a repository that exists.")
    ] = False,
    registry: Store = HERE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Upload an entry to the hub: model, tokenizer, generation config and model card.

    Example: strop registry push algebra ada/algebra --dry-run --registry strop-demo/registry.db
    """
    from strop.hub import address
    from strop.registry.store import Registry
    from strop.registry.transfer.push import planned
    from strop.registry.transfer.push import push as upload

    store = Registry(registry)
    plan = planned(store, which, name, public=public, yes=yes)
    commit = None if dry_run else upload(store, plan)
    if as_json:
        told = {"entry": plan.entry.id, "repository": name, "url": address(name),
                "private": plan.private, "exists": plan.exists, "files": plan.files,
                "left_out": plan.left_out, "removed": plan.removed, "notes": plan.notes,
                "commit": commit}  # fmt: skip
        print(json.dumps(told))
        return
    for line in _lines(plan):
        print(line)
    kind = "private" if plan.private else "public"
    would = "would be" if dry_run else "is"
    at = "" if commit is None else f", at commit {commit}"
    print(f"{plan.entry.id} {would} in {address(name)} ({kind}){at}")


def _lines(plan: Push) -> list[str]:
    """Every file with its bytes, what is left out or removed, and what a reader will miss."""
    return [
        *(f"{size:>14,}  {file}" for file, size in plan.files.items()),
        *(f"{'left out':>14}  {file}" for file in plan.left_out),
        *(f"{'removed':>14}  {file}" for file in plan.removed),
        *(f"note: {note}" for note in plan.notes),
    ]
