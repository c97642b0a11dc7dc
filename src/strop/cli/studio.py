"""`strop studio`."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from strop.cli.options import AsJson


def studio(
    root: Annotated[Path, typer.Argument(help="A folder that holds runs, or one above it.")] = Path(
        "."
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8760,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Look at runs, gates, data, registries and traffic in a browser; only this machine can.

    Example: strop studio runs --no-browser
    """
    from strop.cli.show import setup
    from strop.studio.run import serve

    setup()

    def tell(address: str) -> None:
        print(json.dumps({"url": address}) if as_json else f"studio of {root} at {address}",
              flush=True)  # fmt: skip
        if browser:
            webbrowser.open(address)

    serve(root, port, tell)
