"""Options that the verbs of `strop data` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Inputs = Annotated[list[Path], typer.Argument(help="Data files or folders.")]
OutputPath = Annotated[
    Path, typer.Option("--output", help="A .jsonl file, or a folder, to write the records to.")
]
MaxBad = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Share of rows that may be unusable; 0.01 unless given."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier output.")]
