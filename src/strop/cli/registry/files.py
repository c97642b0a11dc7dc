"""`strop registry verify | checkout | export | import | gc | rebuild`: the stored files."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from strop.cli.options import AsJson, AsJsonLines, DryRun
from strop.cli.registry.read import HERE, Store, Which


def verify(
    which: Annotated[
        str | None, typer.Argument(help="Entry id or name; every entry without one.")
    ] = None,
    registry: Store = HERE,
    as_json: AsJsonLines = False,
) -> None:
    """Hash everything again: stored files, and the folders of promoted models.

    Exit code: 0 as promoted, 12 where a file changed.

    Example: strop registry verify algebra --registry strop-demo/registry.db
    """
    from strop.registry.store import Registry
    from strop.registry.upkeep.verify import expect_unchanged
    from strop.registry.upkeep.verify import verify as verify_entries

    store = Registry(registry)
    checked = verify_entries(store, which)
    for found in checked:
        if as_json:
            print(json.dumps(asdict(found)))
            continue
        names = ", ".join(found.names) or "under no name"
        looked = f", folder {found.folder}" if found.folder else ""
        state = f"{len(found.problems)} changed" if found.problems else "as promoted"
        print(f"{found.entry}  {names}: {state} ({found.objects} stored files{looked})")
    expect_unchanged(store, checked)


def checkout(
    which: Which,
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    registry: Store = HERE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Write the files of an entry into a new folder, exactly as they were promoted.

    Example: strop registry checkout algebra restored --registry strop-demo/registry.db
    """
    from strop.registry.store import Registry
    from strop.registry.transfer.archive import checkout as check_out

    entry = check_out(Registry(registry), which, folder, dry_run=dry_run)
    told = {"entry": entry.id, "folder": str(folder), "files": sorted(entry.manifest)}
    would = "would be" if dry_run else "is"
    print(json.dumps(told) if as_json else f"{entry.id} {would} in {folder}")


def export(
    which: Which,
    path: Annotated[Path, typer.Argument(metavar="FILE.tar", help="A new file.")],
    registry: Store = HERE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """One archive of an entry: its files, history, verdict and model card.

    Example: strop registry export algebra algebra.tar --registry strop-demo/registry.db
    """
    from strop.registry.store import Registry
    from strop.registry.transfer.archive import expect_exportable
    from strop.registry.transfer.archive import export as export_entry

    done = expect_exportable if dry_run else export_entry
    entry = done(Registry(registry), which, path)
    told = {"entry": entry.id, "archive": str(path), "files": sorted(entry.manifest)}
    would = "would be" if dry_run else "is"
    print(json.dumps(told) if as_json else f"{entry.id} {would} in {path}")


def import_entry(
    path: Annotated[Path, typer.Argument(metavar="FILE.tar", help="What export wrote.")],
    entry: Annotated[
        str | None, typer.Option(help="Promote it under this name; needs its passing verdict.")
    ] = None,
    registry: Store = HERE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Take an exported entry in, once every byte of the archive is verified.

    Example: strop registry import algebra.tar --entry algebra --registry there.db
    """
    from strop.registry.store import Registry
    from strop.registry.transfer.unpack import import_archive

    found = import_archive(Registry(registry), path, name=entry, dry_run=dry_run)
    if as_json:
        print(json.dumps({"new": found.new, **asdict(found.entry)}))
        return
    would = "would be" if dry_run else "is"
    what = f"{would} imported" if found.new else "is here already, with all its files"
    name = f"; {entry} {would} this entry" if entry else ", promoted under no name"
    print(f"{found.entry.id} {what}{name if entry or found.new else ''}")


def gc(registry: Store = HERE, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Remove stored files that no name needs, neither now nor after any rollback.

    Example: strop registry gc --dry-run --registry strop-demo/registry.db
    """
    from strop.registry.store import Registry
    from strop.registry.upkeep.garbage import collect

    found = collect(Registry(registry), dry_run=dry_run)
    if as_json:
        print(json.dumps(asdict(found)))
        return
    would = "would free" if dry_run else "freed"
    of = f", of {', '.join(found.entries)}" if found.entries else ""
    print(f"{would} {found.size} bytes in {len(found.objects)} stored files{of}")


def rebuild(registry: Store = HERE, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Make a damaged registry again from the copy of its rows that lies beside it.

    Example: strop registry rebuild --registry strop-demo/registry.db
    """
    from strop.registry.upkeep.rebuild import rebuild as make_again

    rows = make_again(registry, dry_run=dry_run)
    if as_json:
        print(json.dumps({**rows, "registry": str(registry)}))
        return
    said = ", ".join(f"{count} {table}" for table, count in rows.items())
    print(f"{'would make' if dry_run else 'made'} {registry} again: {said}")
