"""A promoted model's files out of the store again, as a folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from strop.errors import RegistryError
from strop.files import place
from strop.registry.records import Entry
from strop.registry.store import Registry
from strop.registry.transfer.archive import expect_stored


def checkout(registry: Registry, which: str, folder: Path, *, dry_run: bool = False) -> Entry:
    """Write the files of an entry into a new folder, each checked by its hash; whole or not there.

    Raises `RegistryError` for a folder that exists and for a file that is damaged or missing.
    """
    entry = registry.entry(which)
    if folder.exists():
        raise RegistryError("the folder exists already", where=str(folder),
                            fix="move it away, or choose another name")  # fmt: skip
    expect_stored(registry, entry)
    if dry_run:
        return entry
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        registry.objects.restore(entry.manifest, temporary)
        place(temporary, folder)
    except OSError as error:
        raise RegistryError(f"the folder cannot be written: {error}", where=str(folder)) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return entry
