"""`strop export-recipe` and `strop import-recipe`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from strop.advise.elsewhere.names import ORIGINS, TARGETS
from strop.cli.options import AsJson, Overrides


def export_recipe(
    recipe: Annotated[Path, typer.Argument(help="A training recipe (YAML).")],
    to: Annotated[
        str,
        typer.Option("--to", metavar="SYSTEM", help=f"One of {', '.join(TARGETS)}."),
    ],
    output: Annotated[Path, typer.Option(help="A new folder for config, data and notes.")],
    overrides: Overrides = [],  # noqa: B006 - typer reads it, nobody writes it
    as_json: AsJson = False,
) -> None:
    """Write the same run as another system's config, and what does not carry over.

    Example: strop export-recipe dpo.yaml --to trl --output with_trl
    """
    from strop.advise.elsewhere.table import export, system_of
    from strop.advise.elsewhere.write import NOTES, write
    from strop.cli.show import setup
    from strop.recipe.loading.load import load_recipe

    setup()
    loaded = load_recipe(recipe, overrides)
    made = export(loaded, to)
    write(made, output, system=system_of(to).name, method=loaded.method)
    files = sorted([*made.files, *made.rows, *made.copies, NOTES])
    if as_json:
        print(json.dumps({"output": str(output), "files": files, "command": made.command,
                          "lost": list(made.lost)}))  # fmt: skip
        return
    print(f"{output}: {', '.join(files)}")
    print(f"start it in {output}: {made.command}")
    _print_lost(made.lost)


def import_recipe(
    file: Annotated[Path, typer.Argument(help="The other system's config (YAML).")],
    source: Annotated[
        str, typer.Option("--from", metavar="SYSTEM", help=f"One of {', '.join(ORIGINS)}.")
    ],
    output: Annotated[Path, typer.Option(help="The recipe to write.")],
    as_json: AsJson = False,
) -> None:
    """Write a recipe that means what another system's config means.

    Example: strop import-recipe llama3_dpo.yaml --from llamafactory --output dpo.yaml
    """
    import yaml

    from strop.advise.elsewhere.table import import_recipe as imported
    from strop.errors import OutputError
    from strop.files import write_whole

    if output.exists():
        raise OutputError("the file is there already", where=str(output),
                          fix="name a new file with --output")  # fmt: skip
    made = imported(file, source)
    write_whole(output, yaml.safe_dump(dict(made.recipe), sort_keys=False, allow_unicode=True))
    if as_json:
        print(json.dumps({"output": str(output), "method": made.recipe["method"],
                          "lost": list(made.lost)}))  # fmt: skip
        return
    print(f"{output}: method {made.recipe['method']}")
    _print_lost(made.lost)


def _print_lost(lost: tuple[str, ...]) -> None:
    print("does not carry over, or means something else:")
    for line in lost:
        print(f"- {line}")
