"""Writes an export as a folder, with what does not carry over in NOTES.md."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from strop.advise.elsewhere.carried import Export, Row
from strop.data.reading.arrow import write_parquet
from strop.errors import OutputError
from strop.files import write_rows, writing_folder

NOTES = "NOTES.md"


def write(made: Export, folder: Path, *, system: str, method: str) -> None:
    """Write the folder, whole or not at all. Raises `OutputError` where it is not empty."""
    if folder.is_file() or (folder.exists() and any(folder.iterdir())):
        raise OutputError("the folder is not empty", where=str(folder),
                          fix="name a new folder with --output")  # fmt: skip
    with writing_folder(folder, replace=False) as temporary:
        for name, text in made.files.items():
            (temporary / name).write_text(text, encoding="utf-8")
        for name, rows in made.rows.items():
            _write_rows(temporary / name, rows)
        for name, path in made.copies.items():
            shutil.copyfile(path, temporary / name)
        (temporary / NOTES).write_text(notes(made, system, method), encoding="utf-8")


def _write_rows(path: Path, rows: Sequence[Row]) -> None:
    if path.suffix == ".parquet":
        write_parquet(path, rows)
    else:
        write_rows(path, rows)


def notes(made: Export, system: str, method: str) -> str:
    """The text of NOTES.md."""
    lost = "".join(f"- {line}\n" for line in made.lost)
    return (
        f"# {method} with {system}\n\nMade from a recipe of strop. Start it in this folder:\n\n"
        f"    {made.command}\n\nWhat does not carry over, or means something else:\n\n{lost}"
    )
