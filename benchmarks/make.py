"""Writes a run's model and records, in a process of its own so that the coordinator stays small."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

from benchmarks.cases import Run


def make(run: Run, folder: Path, example: Path | None = None) -> None:
    """`example` is what `make real` left; a real model's cases need it."""
    folder.mkdir(parents=True, exist_ok=True)
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=make_here, args=(run, folder, example))
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"bench: the files of {run.name} could not be made, for the reason above")


def make_here(run: Run, folder: Path, example: Path | None = None) -> None:
    """Write them in this process."""
    from benchmarks.algebra import build_algebra
    from benchmarks.real import copy_real, missing
    from benchmarks.world import build_model, write_records

    if run.case.data == "real":
        assert example is not None
        absent = missing(run, example)
        if absent is not None:
            sys.exit(f"bench: {absent} is not there\n  fix: make real first, or name its folder")
        copy_real(run, example, folder)
        return
    if run.case.data == "algebra":
        build_algebra(run, folder)
        return
    build_model(run, folder / "model")
    write_records(run, folder / "data.jsonl")
