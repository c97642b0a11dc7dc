"""`strop demo`."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from strop.cli.options import AsJsonLines


def demo(
    seed: Annotated[int, typer.Option(help="Seed of data, weights and sampling.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("strop-demo"),
    files_only: Annotated[bool, typer.Option(help="Write the files, run nothing.")] = False,
    as_json: AsJsonLines = False,
) -> None:
    """The whole loop on generated equations: base, SFT, DPO, GRPO, evals, gates, registry.

    Example: strop demo --seed 1 --out strop-demo
    """
    from strop.cli.stages import watching
    from strop.demo.report import outcome, print_story, write_story
    from strop.demo.write import write_demo
    from strop.pipeline import run_pipeline
    from strop.recipe.loading.load import load
    from strop.recipe.pipeline import Pipeline

    started = time.monotonic()
    with watching(as_json) as observer:
        pipeline = write_demo(out, seed)
        if files_only:
            print(f"wrote {out}; run it with: strop run {pipeline}")
            return
        run_pipeline(load(Pipeline, pipeline), observer)
    result = outcome(out, seconds=time.monotonic() - started)
    write_story(out, result)
    if as_json:
        print(json.dumps(result))
    else:
        program = "strop" if shutil.which("strop") else sys.argv[0]
        print_story(out, result, program=program)
