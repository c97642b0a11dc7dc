"""GRPO beside a real vLLM against the embedded engine: the same accuracy, with and without LoRA.

    python evidence/served.py --python ENV/bin/python --seeds 0 1 2 --out DIR

ENV has vLLM (docs/engines.md). The algebra world's model is made 128 wide, because vLLM's attention
on a CPU wants heads of 32. Finished runs are not run again; the table is printed at the end.
"""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from transformers import AutoTokenizer

from strop.demo.model import raw_model
from strop.demo.write import write_demo
from strop.files import write_rows
from strop.recipe.loading.load import load_recipe
from strop.tracking.runlog import read_rows
from strop.train.run import train
from strop.train.rundir.directory import is_finished

Recipe = dict[str, Any]

WIDE = 128
STEPS = 40
WAYS: dict[str, tuple[Recipe, float]] = {
    "full": ({}, 3e-4),
    "lora": ({"lora": {"rank": 8, "alpha": 16.0}}, 3e-3),
}
"""What is trained, and its learning rate."""


def world(folder: Path, seed: int) -> None:
    """The demo's files with a wider model, and the SFT model that all runs start from."""
    if not (folder / "wide").exists():
        write_demo(folder, seed)
        tokenizer = AutoTokenizer.from_pretrained(folder / "model")
        raw_model(tokenizer, seed, width=WIDE).save_pretrained(folder / "wide")
        tokenizer.save_pretrained(folder / "wide")
        held_out = islice(read_rows(folder / "data/test.jsonl"), 100)
        write_rows(folder / "data/test_100.jsonl", held_out)
    recipe = yaml.safe_load((folder / "sft.yaml").read_text(encoding="utf-8"))
    recipe |= {"output": str(folder / "runs/sft"), "model": {"path": str(folder / "wide")},
               "data": str(folder / "data/demonstrations.jsonl")}  # fmt: skip
    run(recipe)


def run(recipe: Recipe) -> list[Recipe]:
    """The steps of a run, which is made if it is not there yet."""
    output = Path(recipe["output"])
    if not is_finished(output):
        train(load_recipe(recipe), overwrite=True)
    return [json.loads(line) for line in (output / "metrics.jsonl").open(encoding="utf-8")]


def recipe_of(folder: Path, way: str, engine: Recipe, output: Path) -> Recipe:
    model, rate = WAYS[way]
    return {
        "method": "grpo", "output": str(output),
        "model": {"path": str(folder / "runs/sft/final"), **model},
        "data": str(folder / "data/tasks.jsonl"), "text": {"max_length": 96},
        "rollout": {"group_size": 8, "max_tokens": 48, "engine": engine},
        "reward": [{"function": "exact_answer"}, {"function": "format_tags", "weight": 0.2}],
        "optim": {"learning_rate": rate, "schedule": "linear", "warmup_ratio": 0.0,
                  "final_ratio": 0.1, "betas": [0.9, 0.95]},
        "run": {"steps": STEPS, "batch_size": 32},
        "eval": {"data": str(folder / "data/test_100.jsonl"), "every": STEPS,
                 "temperature": 0.0, "reward": [{"function": "exact_answer"}]},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--python", type=Path, required=True, help="a Python with vLLM")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    engines: dict[str, Recipe] = {
        "embedded": {"kind": "local"},
        "vllm": {"kind": "vllm", "python": str(given.python.absolute())},
    }
    lines = ["| seed | trained | embedded | vLLM | engine against trainer before step 1, nats |",
             "|---|---|---|---|---|"]  # fmt: skip
    for seed in given.seeds:
        folder = given.out.resolve() / f"world-{seed}"
        world(folder, seed)
        for way in WAYS:
            outputs = {name: folder / f"runs/{way}-{name}" for name in engines}
            last = {name: run(recipe_of(folder, way, engine, outputs[name]))[-1]["eval_reward"]
                    for name, engine in engines.items()}  # fmt: skip
            lineage = json.loads((outputs["vllm"] / "lineage.json").read_text(encoding="utf-8"))
            apart = lineage["self_check"]["sampler_mismatch"]
            lines.append(f"| {seed} | {way} | {last['embedded']:.2f} | {last['vllm']:.2f} | "
                         f"{apart:.1g} |")  # fmt: skip
            print(lines[-1], flush=True)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
