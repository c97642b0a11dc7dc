"""`strop serve`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from strop.cli.options import AsJson, DryRun, Overrides, spoken


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
        typer.Option(
            metavar="URL",
            help="A vLLM (sglang:URL: an SGLang) started with the same model draws the answers.",
        ),
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
    said = [(given, _named(given)) for given in models or ()]
    said += [(f"--follow {entry}", {"name": entry, "entry": entry, "follow": True})
             for entry in follow or ()]  # fmt: skip
    options = _put(values, port=port, host=host, registry=registry and str(registry.resolve()))
    listed = values.get("models") or []
    if said and isinstance(listed, list):  # what is no list is refused below, with its place
        values["models"] = [*listed, *(model for _, model in said)]
        options |= {f"models.{n}": given for n, (given, _) in enumerate(said, len(listed))}
    if engine is not None:
        kind, url = spoken(engine)
        values["engine"] = {"kind": kind, "url": url}
        options["engine"] = f"--engine {engine}"
    kept = values.get("traffic") or {}
    if traffic is not None and isinstance(kept, dict):
        values["traffic"] = {**kept, "folder": str(traffic.resolve())}
        options["traffic.folder"] = f"--traffic {traffic}"
    source = _overridden(source, sets, options)
    _expect_models(source)
    recipe = validate(ServeRecipe, source)
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


def _put(values: dict[str, Any], **given: Any) -> dict[str, str]:
    """Values of the options that are given; what a message calls each."""
    values.update({name: value for name, value in given.items() if value is not None})
    return {name: f"--{name} {value}" for name, value in given.items() if value is not None}


def _overridden(source: Any, sets: list[str], options: dict[str, str]) -> Any:
    from dataclasses import replace

    from strop.recipe.loading.load import read_source

    changed = read_source(source.values, sets)
    return replace(source, values=changed.values, overridden={**options, **changed.overridden})


def _expect_models(source: Any) -> None:
    """Raise `UsageError` where nothing is to be served."""
    from strop.errors import UsageError

    if not source.values.get("models"):
        raise UsageError(
            "nothing is named that could be served",
            where=None if source.path is None else str(source.path),
            fix="give model folders or entries (strop serve runs/dpo/final), --follow ENTRY, or "
            "`models` in the YAML of --config",
        )


def _named(given: str) -> dict[str, Any]:
    """`runs/dpo/final`, `support`, `fast=runs/dpo/final`."""
    from strop.serve.models.places import name_of

    name, sign, where = given.partition("=")
    where = where if sign else given
    if Path(where).is_dir():
        return {"name": name if sign else name_of(where), "path": str(Path(where).resolve())}
    return {"name": name, "entry": where}
