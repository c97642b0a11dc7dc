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


def main() -> None:
    parser = argparse.ArgumentParser(prog="examples/real", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/real"), help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="of data, training and sampling")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/strop",
                        help="where the downloaded model is kept")  # fmt: skip
    given = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries
    warnings.formatwarning = lambda message, *_: f"    warning: {message}\n"
    try:
        base_model(given.out.resolve() / "base", given.cache.resolve())
        pipeline = write_example(given.out.resolve(), given.seed)
        watch = Watch(given.out.resolve())
        strop.run(pipeline, on_step=watch.step, on_stage=watch.stage)
    except StropError as error:
        sys.exit(f"real: {error}")
    print_story(given.out.resolve())
    print(f"page: {write_story(given.out.resolve())}")


if __name__ == "__main__":
    main()
