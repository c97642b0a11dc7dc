"""Files and folders that are whole or not there: hashed, flushed, renamed into place."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from strop.errors import OutputError

MANIFEST = "manifest.json"


def manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """sha256 and size of every file of a folder, by relative name."""
    listed = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.name != MANIFEST:
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            listed[str(file.relative_to(folder))] = {
                "sha256": digest,
                "size": file.stat().st_size,
            }
    return listed


def verify(folder: Path) -> None:
    """Raise `OutputError` naming the first file that is not what the manifest says."""
    try:
        expected = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise OutputError(f"the manifest cannot be read: {error}", where=str(folder)) from None
    if not isinstance(expected, dict):
        raise OutputError("the manifest is no table of files", where=str(folder))
    found = manifest(folder)
    for name, entry in expected.items():
        if found.get(name) != entry:
            raise OutputError(
                f"{name} is {'damaged' if name in found else 'missing'}",
                where=str(folder),
                fix="delete this checkpoint and resume from the one before",
            )


def publish(temporary: Path, folder: Path) -> None:
    """Flush every file, then rename the folder into place and flush the rename."""
    for file in temporary.rglob("*"):
        if file.is_file():
            file.chmod(0o644)  # safetensors writes for its owner alone
        flush(file)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)
    flush(folder.parent)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader finds the old text or the new, never a part."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    flush(temporary)
    os.replace(temporary, path)


def point(run: Path, link: str, name: str) -> None:
    """Move the symlink `link` of a run to `name` in one stroke."""
    temporary = run / f".{link}.tmp"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(name)
    os.replace(temporary, run / link)
    flush(run)


def sweep(run: Path) -> None:
    """Remove what interrupted writes left: hidden files and folders that end in `.tmp`."""
    for rubbish in run.glob(".*.tmp"):
        if rubbish.is_dir() and not rubbish.is_symlink():
            shutil.rmtree(rubbish, ignore_errors=True)
        else:
            rubbish.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Wait until a file or a folder's entries are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
