"""SFT, then GRPO on episodes, in the worlds of examples/worlds, measured before and after.

    python -m evidence.worlds --out DIR --world calculator direct --seeds 0 1 2
    python -m evidence.worlds --out DIR --world database support --seeds 0

`direct` is the calculator world without the tool. Each run leaves `result.json` (held-out scores
and figures of its suite, rewards by step, seconds); a finished run is skipped. At the end a table
of what is finished is printed, and its curves are drawn (`--picture FILE`).
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from examples.worlds.base import write_world
from strop.evals.run import run_suite
from strop.evals.summary import read_summary
from strop.files import write_json
from strop.recipe.loading.load import load, load_recipe
from strop.recipe.suite import Suite
from strop.train.run import train
from strop.train.rundir.directory import is_finished

WORLDS = Path(__file__).resolve().parent.parent / "examples/worlds"
RUNS = {
    "calculator": ("calculator", ""),
    "direct": ("calculator", "-direct"),
    "database": ("database", ""),
    "support": ("support", ""),
}
"""Name -> the world's folder, and what its recipes' names end with."""


def measured(suite: Path, model: Path, output: Path) -> dict[str, Any]:
    """Scores and figures of the held-out tasks."""
    if not (output / "summary.json").exists():
        run_suite(load(Suite, suite), str(model), output)
    summary = read_summary(output)
    return {"scores": summary["scores"], "figures": summary["figures"]}


def run(name: str, seed: int, folder: Path) -> None:
    """Make the world, train twice, measure twice, write `result-<name>.json`."""
    world, ending = RUNS[name]
    result = folder / f"result{ending}.json"
    if result.exists():
        return
    if not (folder / "base").exists():
        make = importlib.import_module(f"examples.worlds.{world}.make")
        write_world(WORLDS / world, folder, make.tables(seed), seed)
    told: dict[str, Any] = {"world": name, "seed": seed}
    for stage in ("sft", "grpo"):
        recipe = load_recipe(folder / f"{stage}{ending}.yaml", [f"seed={seed}"])
        trained = folder / f"{stage}{ending}"
        if not is_finished(trained):
            train(recipe, force=True, overwrite=True)
        found = measured(
            folder / f"suite{ending}.yaml", trained / "final", folder / f"eval-{stage}{ending}"
        )
        steps = list(map(json.loads, (trained / "metrics.jsonl").read_text().splitlines()))
        seconds = sum(step["step_time"] for step in steps if "step_time" in step)
        told[stage] = {"seconds": round(seconds, 1), **found}
    told["curve"] = [step["reward"] for step in steps if "reward" in step]
    write_json(result, told)


def finished(out: Path) -> Iterator[dict[str, Any]]:
    """What every finished run came to, world by world."""
    found = [json.loads(path.read_text()) for path in sorted(out.glob("*/seed-*/result*.json"))]
    yield from sorted(found, key=lambda told: (list(RUNS).index(told["world"]), told["seed"]))


def table(out: Path) -> str:
    """A row for every finished run: the suite's first score and pass^4, before and after."""
    lines = [
        "| world | seed | after SFT | after GRPO | pass^4, before and after |",
        "|---|---|---|---|---|",
    ]
    for told in finished(out):
        before, after = (told[stage]["scores"] for stage in ("sft", "grpo"))
        score = next(key for key in before if "pass^" not in key)
        whole = [f"{s[key]:.2f}" for s in (before, after) for key in s if "pass^" in key]
        lines.append(
            f"| {told['world']} | {told['seed']} | {before[score]:.2f} | {after[score]:.2f} "
            f"| {', '.join(whole) or '-'} |"
        )
    return "\n".join(lines)


def picture(out: Path, path: Path) -> None:
    """Rewards of training by step, a panel for each world and a line for each seed."""
    figure, axes = plt.subplots(1, len(RUNS), figsize=(10, 2.8), sharey=True)
    for axis, name in zip(axes, RUNS, strict=True):
        for told in finished(out):
            if told["world"] == name:
                axis.plot(*smoothed(told["curve"]), linewidth=1, label=f"seed {told['seed']}")
        axis.set(xlabel="step", title=name, ylim=(0, 1))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("mean reward, 5 steps")
    axes[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def smoothed(rewards: Sequence[float]) -> tuple[list[int], list[float]]:
    """Steps, and the mean of the five rewards that end at each."""
    steps = list(range(5, len(rewards) + 1))
    return steps, [sum(rewards[n - 5 : n]) / 5 for n in steps]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--world", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--picture", type=Path, help="where to write the curves")
    options = parser.parse_args()
    for seed in options.seeds:
        for name in options.world:
            run(name, seed, options.out / RUNS[name][0] / f"seed-{seed}")
    print(table(options.out))
    if options.picture:
        picture(options.out, options.picture)


if __name__ == "__main__":
    main()
