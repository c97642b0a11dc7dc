"""The demo's SFT model and its careless DPO, blended: `python evidence/blend.py --out DIR`.

    python evidence/blend.py --seeds 0 1 2 --out DIR        # 15 minutes on 2 quiet cores
    python evidence/blend.py --seeds 0 1 2 --out DIR --report docs/blend.svg

For each seed: the demo's SFT and its careless run, then `strop blend --curve 0,0.1,...,1` on the
demo's suite, with its gate for DPO. What is there already is not made again. The report prints the
table of docs/evidence.md and copies the first seed's picture.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from strop.cli.show import setup
from strop.demo.write import write_demo
from strop.evals.blend.curve import run_curve
from strop.model.blend.make import checked_blend
from strop.model.blend.settings import progression, settle
from strop.recipe.gate import GateRules
from strop.recipe.loading.load import load, load_recipe
from strop.recipe.suite import Suite
from strop.train.run import train
from strop.train.rundir.directory import is_finished

WEIGHTS = "0,0.1,...,1"
FILLER, KEPT = 0.05, 0.9
"""A point is found where at most this share of sampled answers opens with filler, and at least this
share of the SFT model's greedy accuracy is left."""


def measured(folder: Path, seed: int) -> None:
    write_demo(folder, seed)
    for name in ("sft", "careless"):
        if not is_finished(folder / "runs" / name):
            train(load_recipe(folder / f"{name}.yaml"), force=True)
    models = [str(folder / f"runs/{name}/final") for name in ("sft", "careless")]
    settings = settle("linear", [], 2)
    with checked_blend(models, settings, registry=folder / "registry.db") as blend:
        run_curve(
            blend, progression(WEIGHTS), load(Suite, folder / "suite.yaml"), folder / "curve",
            policy=load(GateRules, folder / "gate-dpo.yaml"),
            on_point=lambda weight: print(f"{folder.name} weight {weight:g}", flush=True),
        )  # fmt: skip


def filler(point: dict[str, Any]) -> float:
    return 1 - float(point["scores"]["sampled/no_filler"])


def accuracy(point: dict[str, Any]) -> float:
    return float(point["scores"]["greedy/accuracy"])


def report(folders: list[Path], picture: Path) -> None:
    """A row for each weight, seeds side by side; then the points that were looked for."""
    curves = [json.loads((folder / "curve/curve.json").read_text()) for folder in folders]
    print("| weight of the careless run | filler | accuracy | accuracy, sampled | gate |")
    print("|---|---|---|---|---|")
    for points in zip(*(curve["points"] for curve in curves), strict=True):
        cells = [
            " ".join(f"{filler(p):.3f}" for p in points),
            " ".join(f"{accuracy(p):.3f}" for p in points),
            " ".join(f"{p['scores']['sampled/accuracy']:.3f}" for p in points),
            ", ".join(p["verdict"] or "-" for p in points),
        ]
        print(f"| {points[0]['weight']:g} | {' | '.join(cells)} |")
    for folder, curve in zip(folders, curves, strict=True):
        least = KEPT * accuracy(curve["points"][0])
        found = [f"{p['weight']:g}" for p in curve["points"]
                 if filler(p) <= FILLER and accuracy(p) >= least]  # fmt: skip
        print(f"{folder.name}: filler <= {FILLER:g} and accuracy >= {least:.3f} at "
              f"{', '.join(found) or 'no weight'}; the gate passes {curve['passing']}")  # fmt: skip
    shutil.copyfile(folders[0] / "curve/curve.svg", picture)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--report", type=Path, help="where to write the picture")
    options = parser.parse_args()
    folders = [options.out / f"seed-{seed}" for seed in options.seeds]
    if options.report:
        report(folders, options.report)
        return
    setup()
    for folder, seed in zip(folders, options.seeds, strict=True):
        measured(folder, seed)


if __name__ == "__main__":
    main()
