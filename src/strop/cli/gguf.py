"""`strop export-gguf`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from strop.cli.options import AsJson, DryRun
from strop.cli.registry.read import HERE, Store


def export_gguf(
    model: Annotated[str, typer.Argument(help="A whole model: folder, registry entry, hub name.")],
    output: Annotated[Path, typer.Option(help="A new file (.gguf).")],
    dtype: Annotated[
        Literal["float32", "float16"], typer.Option(help="Precision of the matrices.")
    ] = "float16",
    pretokenizer: Annotated[
        str | None,
        typer.Option(help="llama.cpp's rule to split texts, if it has none that is the model's."),
    ] = None,
    registry: Store = HERE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Write a model as one GGUF file for llama.cpp and what is built on it.

    Example: strop export-gguf models/dpo --output dpo.gguf
    """
    from dataclasses import asdict

    from strop.cli.show import setup
    from strop.model.gguf.export import check_export, write_gguf
    from strop.model.stored import stored

    setup()
    with stored(model, registry) as found:
        plan = check_export(found, output, dtype=dtype, pretokenizer=pretokenizer)
        if not as_json:
            for note in plan.notes:
                print(f"  note: {note}")
        if not dry_run:
            write_gguf(plan, output)
        told = asdict(plan.summary)
    if as_json:
        print(json.dumps({**told, "notes": list(plan.notes), "output": str(output)}))
        return
    would = "would be written" if dry_run else "written"
    print(
        f"{model}: {told['tensors']} tensors of a {told['architecture']}, {told['dtype']}, "
        f"{told['tokens']} tokens split as {told['pretokenizer']}: {would} to {output}"
    )
