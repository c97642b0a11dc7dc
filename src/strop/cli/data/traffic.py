"""`strop data traffic`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from strop.cli.options import AsJson


def traffic(
    folder: Annotated[Path, typer.Argument(help="The traffic folder of `strop serve`.")],
    to: Annotated[Literal["otlp", "langfuse"], typer.Option(help="Whose form.")],
    output: Annotated[Path | None, typer.Option(help="A .jsonl file to write.")] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="An OpenTelemetry collector, http://host:4318.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a server's traffic in the form of another system, or send it to a collector.

    Example: strop data traffic traffic --to otlp --endpoint http://127.0.0.1:4318
    """
    from strop.errors import UsageError
    from strop.files import write_rows
    from strop.serve.traffic.export import FORMS, send
    from strop.serve.traffic.rows import rows_in

    if (output is None) == (endpoint is None):
        raise UsageError("say where it goes", where="strop data traffic",
                         fix="give --output FILE or --endpoint URL")  # fmt: skip
    if endpoint is not None and to != "otlp":
        raise UsageError("a collector takes OTLP", where="--endpoint", fix="give --to otlp")
    made = list(FORMS[to](rows_in(folder)))
    if output is not None:
        write_rows(output, made)
    if endpoint is not None:
        send(made, endpoint)
    told = {"objects": len(made), "to": str(output or endpoint)}
    print(json.dumps(told) if as_json else f"{len(made)} objects to {told['to']}")
