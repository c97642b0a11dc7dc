"""Options that several verbs share."""

from __future__ import annotations

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines.")]
AsJsonArray = Annotated[bool, typer.Option("--json", help="Print one JSON array for machines.")]
AsJsonLines = Annotated[bool, typer.Option("--json", help="Print JSON lines for machines.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, write nothing.")]
Overrides = Annotated[
    list[str],
    typer.Option("--set", metavar="A.B=C", help="Override a key of the YAML; may be repeated."),
]
