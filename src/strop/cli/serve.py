"""`strop serve`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from strop.cli.options import AsJson, DryRun, Overrides


def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FOLDER_OR_ENTRY...",
            help="Model folders, or entries of the registry; NAME=FOLDER_OR_ENTRY names one.",
        ),
    ] = None,
    port: Annotated[int | None, typer.Option(help="0 takes any free port. [default: 8000]")] = None,
    host: Annotated[
        str | None, typer.Option(help="Other addresses need tokens. [default: 127.0.0.1]")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML with models, tokens, limits, traffic, canary.")
    ] = None,
    registry: Annotated[Path | None, typer.Option(help="The registry that entries are in.")] = None,
    traffic: Annotated[
        Path | None, typer.Option(help="Folder that keeps requests, answers and feedback.")
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(metavar="URL", help="A vLLM started with the same model draws the answers."),
    ] = None,
    follow: Annotated[
        list[str] | None,
        typer.Option(metavar="ENTRY", help="Serve this name and pick up its promotions."),
    ] = None,
    sets: Overrides = [],  # noqa: B006
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Serve models over OpenAI's protocol, and keep what users say of the answers.

    Example: strop serve runs/dpo/final --port 8000 --traffic traffic
    """
    from strop.cli.show import setup
    from strop.recipe.loading.load import read_source, read_yaml, validate
    from strop.recipe.serve import ServeRecipe
    from strop.serve.run import check
    from strop.serve.run import serve as run

    setup()
    source = read_yaml(config) if config is not None else read_source({})
    values = source.values
    named = [_named(given) for given in models or ()]
    named += [{"name": entry, "entry": entry, "follow": True} for entry in follow or ()]
    listed = values.get("models") or []
    if named and isinstance(listed, list):  # what is no list is refused below, with its place
        values["models"] = [*listed, *named]
    _put(values, port=port, host=host, registry=registry and str(registry.resolve()))
    if engine is not None:
        values["engine"] = {"kind": "vllm", "url": engine}
    kept = values.get("traffic") or {}
    if traffic is not None and isinstance(kept, dict):
        values["traffic"] = {**kept, "folder": str(traffic.resolve())}
    recipe = validate(ServeRecipe, _overridden(source, sets))
    if dry_run:
        check(recipe)
        print(json.dumps(recipe.plain()) if as_json else f"would serve {_names(recipe)}")
        return

    def tell(address: str) -> None:
        told = {"url": address, "models": [model.name for model in recipe.models]}
        print(json.dumps(told) if as_json else f"serving {_names(recipe)} at {address}", flush=True)

    run(recipe, tell)


def _names(recipe: Any) -> str:
    return ", ".join(model.name for model in recipe.models)


def _put(values: dict[str, Any], **given: Any) -> None:
    values.update({name: value for name, value in given.items() if value is not None})


def _overridden(source: Any, sets: list[str]) -> Any:
    from dataclasses import replace

    from strop.recipe.loading.load import read_source

    return replace(source, values=read_source(source.values, sets).values)


def _named(given: str) -> dict[str, Any]:
    """`runs/dpo/final`, `support`, `fast=runs/dpo/final`."""
    from strop.serve.models.places import name_of

    name, sign, where = given.partition("=")
    where = where if sign else given
    if Path(where).is_dir():
        return {"name": name if sign else name_of(where), "path": str(Path(where).resolve())}
    return {"name": name, "entry": where}
