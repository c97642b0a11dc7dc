"""Options that several verbs share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

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
        help="A server that holds the model (vLLM, strop engine serve; sglang:URL for SGLang); may "
        "be repeated.",
    ),
]

SGLANG = "sglang:"


def spoken(given: str) -> tuple[str, str]:
    """Kind and address of a server: `sglang:URL` speaks SGLang's protocol, `URL` vLLM's."""
    url = given.removeprefix(SGLANG)
    return ("vllm" if url == given else "sglang"), url


def holders(servers: Sequence[str]) -> dict[str, Any] | None:
    """What a recipe says under `engine` where --engine was given.

    Raises `UsageError` for several addresses in one option, for one of a server's interfaces, and
    for servers of both kinds.
    """
    if not servers:
        return None
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
    kinds, urls = zip(*map(spoken, servers), strict=True)
    if len(set(kinds)) > 1:
        raise UsageError(
            f"--engine names servers of two kinds: {', '.join(servers)}",
            fix="ask those of one kind alone",
        )
    return {"kind": kinds[0], "url": list(urls)}


def asking(servers: Sequence[str], key: str = "engine") -> list[str]:
    """Overrides by which a recipe asks these servers; none where there are none."""
    named = holders(servers) or {}
    return [f"{key}.{name}={json.dumps(value)}" for name, value in named.items()]
