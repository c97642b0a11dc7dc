"""`strop doctor`."""

from __future__ import annotations

import json

import typer

from strop.cli.options import AsJson

EMULATES = "emulates: Muon orthogonalises in float32 here, `dtype: bfloat16` is refused"


def doctor(as_json: AsJson = False) -> None:
    """Say what this machine can run, check that the tree forward is exact and the sandbox holds.

    Example: strop doctor
    """
    from strop.cli.show import setup
    from strop.demo.model import probe_exactness
    from strop.model.arithmetic import cpu_speeds
    from strop.train.rundir.directory import environment

    setup()
    difference = probe_exactness()
    exact = difference < 1e-4
    speeds = cpu_speeds()
    found = {
        **environment(),
        "cpu_float32_gflops": round(speeds.float32, 1),
        "cpu_bfloat16_gflops": round(speeds.bfloat16, 1),
        "cpu_bfloat16": EMULATES if speeds.emulates_bfloat16 else "computes",
        "sandbox": _sandbox(),
        "tree_forward_difference": difference,
        "ok": exact,
    }
    if as_json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"  {name:<26} {value}")
    raise typer.Exit(0 if exact else 1)


def _sandbox() -> str:
    """The tier that code rewards would run in, or why there is none."""
    from strop.errors import SandboxError
    from strop.sandbox.tiers import strongest

    try:
        return strongest()
    except SandboxError as error:
        return error.problem
