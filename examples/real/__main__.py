"""A real model, start to finish: `python examples/real --out build/real --seed 0`."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

from base import base_model
from page import print_story, write_story
from prepare import write_example
from watch import Watch

import strop
from strop.errors import StropError
from strop.pipeline import GateRefused


def main() -> None:
    parser = argparse.ArgumentParser(prog="examples/real", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/real"), help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="of data, training and sampling")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/strop",
                        help="where the downloaded model is kept")  # fmt: skip
    given = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries
    warnings.formatwarning = lambda message, *_: f"    warning: {message}\n"
    folder = given.out.resolve()
    refusal = None
    try:
        base_model(folder / "base", given.cache.resolve())
        pipeline = write_example(folder, given.seed)
        watch = Watch(folder)
        strop.run(pipeline, on_step=watch.step, on_stage=watch.stage)
    except GateRefused as refused:  # the last gate: all that the story tells is there
        refusal = refused
    except StropError as error:
        sys.exit(f"real: {error}")
    print_story(folder)
    print(f"page: {write_story(folder)}")
    if refusal is not None:
        print(f"real: not promoted. {refusal}")
        sys.exit(refusal.exit_code)


if __name__ == "__main__":
    main()
