"""Options that several verbs share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated

import typer

from strop.errors import UsageError

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
    """Overrides by which a recipe asks these servers; none where there are none. Raises
    `UsageError` for several addresses in one option, and for one of a server's interfaces."""
    for given in servers:
        if "," in given:
            repeated = " ".join(f"--engine {one.strip()}" for one in given.split(","))
            raise UsageError(
                f"--engine takes one address, and got {given}", fix=f"repeat it: {repeated}"
            )
        if given.rstrip("/").endswith("/v1"):
            raise UsageError(
                f"--engine {given} is the address of the server's OpenAI interface alone",
                fix=f"give the server's own: --engine {given.rstrip('/').removesuffix('/v1')}",
            )
    return [f"{key}.kind=vllm", f"{key}.url={json.dumps(list(servers))}"] if servers else []
