"""`strop doctor`."""

from __future__ import annotations

import json

import typer

from strop.cli.options import AsJson


def doctor(as_json: AsJson = False) -> None:
    """Say what this machine can run, and check that the tree forward is exact here.

    Example: strop doctor
    """
    from strop.cli.show import setup
    from strop.demo.model import probe_exactness
    from strop.train.directory import environment

    setup()
    difference = probe_exactness()
    exact = difference < 1e-4
    found = {**environment(), "tree_forward_difference": difference, "ok": exact}
    if as_json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"  {name:<26} {value}")
    raise typer.Exit(0 if exact else 1)
