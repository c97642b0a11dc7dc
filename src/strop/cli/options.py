"""Options that several verbs share."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
Servers = Annotated[
    list[str],
    typer.Option(
        "--engine",
        metavar="URL",
        help="A server that holds the model (vLLM, strop engine serve); may be repeated.",
    ),
]


def asking(servers: Sequence[str], key: str = "engine") -> list[str]:
    """Overrides by which a recipe asks these servers; none where there are none."""
    return [f"{key}.kind=vllm", f"{key}.url={json.dumps(list(servers))}"] if servers else []
