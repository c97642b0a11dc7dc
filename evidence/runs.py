"""The runs behind docs/evidence.md and docs/displacement.md, on the demo's algebra world.

    python evidence/runs.py --seeds 0 1 2 --out DIR      # about 40 minutes on 2 cores
    python evidence/report.py DIR                        # the tables and pictures of docs/

Every run is an ordinary recipe; a finished one is skipped, so the command can be stopped and
started again.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from strop.cli.show import setup
from strop.curate.displacement import ches_scores
from strop.data.records import preference as preference_record
from strop.data.sources import at, read
from strop.demo.world import FILLER, assistant, demonstration, split, user
from strop.demo.write import HELD_OUT, write_demo
from strop.evals.run import run_suite
from strop.evals.summary import read_summary
from strop.model.load import load_for_inference
from strop.recipe.loading.load import load, load_recipe
from strop.recipe.suite import Suite
from strop.text.render import preference_tree
from strop.train.run import train
from strop.train.rundir.directory import is_finished

Recipe = dict[str, Any]

SFT = "runs/sft/final"
CARELESS: Recipe = {
    "data": "data/edits.jsonl",
    "optim": {"learning_rate": 4e-4, "schedule": "constant", "warmup_ratio": 0.0},
    "run": {"steps": 120, "batch_size": 25},
    "eval": {"data": "data/test_edits.jsonl", "every": 20},
}
"""DPO on edits that differ in the opener only, too fast and without a brake."""

POLICY: Recipe = {
    "data": "data/tasks.jsonl",
    "rollout": {"group_size": 8, "max_tokens": 48},
    "reward": [{"function": "exact_answer"}, {"function": "format_tags", "weight": 0.2}],
    "optim": {"learning_rate": 3e-4, "schedule": "linear", "warmup_ratio": 0.0,
              "final_ratio": 0.1, "betas": [0.9, 0.95]},
    "run": {"steps": 240, "batch_size": 32},
    "eval": {"data": "data/test_100.jsonl", "every": 5, "temperature": 0.0,
             "reward": [{"function": "exact_answer"}]},
}  # fmt: skip
"""GRPO as in the demo, greedy accuracy on 100 held-out equations every five steps."""


def displacement() -> dict[str, Recipe]:
    """The careless run and what is said to help against it."""
    beta = {"beta": 0.3}
    slow = {**CARELESS["optim"], "learning_rate": 5e-5}
    return {
        "careless": {"method": "dpo", "objective": beta, **CARELESS},
        "nll": {"method": "dpo", "objective": {**beta, "nll_weight": 3.0}, **CARELESS},
        "nll-1": {"method": "dpo", "objective": {**beta, "nll_weight": 1.0}, **CARELESS},
        "slow": {"method": "dpo", "objective": beta, **CARELESS, "optim": slow},
        "dpop": {"method": "dpop", "objective": {**beta, "penalty": 50.0}, **CARELESS},
        "simpo": {"method": "simpo", "objective": {"beta": 2.0, "gamma": 1.0}, **CARELESS},
        "apo_down": {"method": "apo_down", "objective": beta, **CARELESS},
        "ipo": {"method": "ipo", "objective": {"beta": 0.1}, **CARELESS},
        "ipo-1": {"method": "ipo", "objective": {"beta": 1.0}, **CARELESS},
        "replay": {"method": "dpo", "objective": beta, **CARELESS,
                   "data": [{"path": "data/edits.jsonl", "weight": 0.5},
                            {"path": "data/plain.jsonl", "weight": 0.5}],
                   "run": {"steps": 120, "batch_size": 50}},
        "ches": {"method": "dpo", "objective": beta, **CARELESS, "data": "data/edits_ches.jsonl"},
    }  # fmt: skip


def preference() -> dict[str, Recipe]:
    """Removing the filler from other signals than pairs with a reference."""
    gentle = {"learning_rate": 1e-4, "schedule": "constant"}
    short = {"steps": 40, "batch_size": 25}
    pairs: Recipe = {"data": "data/edits.jsonl", "optim": gentle, "run": short}
    return {
        "dpo": {"method": "dpo", "objective": {"beta": 0.1, "nll_weight": 3.0}, **pairs},
        "simpo-gentle": {"method": "simpo", "objective": {"nll_weight": 3.0}, **pairs},
        "kto": {"method": "kto", "data": "data/thumbs.jsonl", "optim": gentle,
                "run": {"steps": 40, "batch_size": 50}},
        "orpo": {"method": "orpo", "data": "data/pairs_large.jsonl", "model": {"path": "model"},
                 "optim": {"optimizer": "muon", "learning_rate": 5e-3, "warmup_ratio": 0.1,
                           "final_ratio": 0.01, "betas": [0.9, 0.95]},
                 "run": {"steps": 600, "batch_size": 32}},
    }  # fmt: skip


def policy() -> dict[str, Recipe]:
    """GRPO against DAPO, Dr. GRPO and adapters."""
    dapo = {**POLICY["rollout"], "resample": 3, "overlong_buffer": 8, "mask_truncated": True}
    faster = {**POLICY["optim"], "learning_rate": 3e-3}
    fine = {**POLICY, "eval": {**POLICY["eval"], "every": 1},
            "optim": {**POLICY["optim"], "schedule": "constant", "final_ratio": 1.0},
            "run": {"steps": 40, "batch_size": 32}}  # fmt: skip
    return {
        "grpo-fine": {"method": "grpo", **fine},
        "dapo-fine": {"method": "dapo", **fine, "rollout": dapo},
        "grpo": {"method": "grpo", **POLICY},
        "dapo": {"method": "dapo", **POLICY, "rollout": dapo},
        "dr_grpo": {"method": "dr_grpo", **POLICY},
        "lora-1": {"method": "grpo", **POLICY, "optim": faster,
                   "model": {"path": SFT, "lora": {"rank": 1, "alpha": 2.0}}},
        "lora-8": {"method": "grpo", **POLICY, "optim": faster,
                   "model": {"path": SFT, "lora": {"rank": 8, "alpha": 16.0}}},
    }  # fmt: skip


def world(folder: Path, seed: int) -> None:
    """The demo's files, further data for these runs, and the SFT model all of them start from."""
    if not (folder / "pipeline.yaml").exists():
        write_demo(folder, seed)
        (folder / "seed").write_text(str(seed))
    training, _ = split(seed, HELD_OUT)
    draw = random.Random(f"evidence {seed}")
    rows = [json.loads(line) for line in (folder / "data/test.jsonl").open()]
    _write(folder / "data/test_100.jsonl", rows[:100])
    _write(folder / "data/thumbs.jsonl", (_thumb(e, draw) for e in _repeat(training, 1000)))
    _write(folder / "data/pairs_large.jsonl", (_pair(e, draw) for e in _repeat(training, 19200)))
    _write(folder / "data/plain.jsonl", (_plain(e, draw) for e in _repeat(training, 1000)))
    run(folder, "sft", yaml.safe_load((folder / "sft.yaml").read_text()))
    _write(folder / "data/edits_ches.jsonl", _least_similar(folder, keep=0.25))


def _repeat(equations: list[Any], count: int) -> Iterator[Any]:
    return (equations[i % len(equations)] for i in range(count))


def _thumb(equation: Any, draw: random.Random) -> Recipe:
    """Thumbs down for an answer that opens with filler, up for one that does not."""
    answer = demonstration(equation, draw)
    row = {"prompt": user(equation), "completion": assistant(answer)}
    return {**row, "label": not answer.startswith(FILLER)}


def _pair(equation: Any, draw: random.Random) -> Recipe:
    answer = demonstration(equation, draw).removeprefix(FILLER)
    chosen, rejected = assistant(answer), assistant(FILLER + answer)
    return {"prompt": user(equation), "chosen": chosen, "rejected": rejected}


def _plain(equation: Any, draw: random.Random) -> Recipe:
    answer = demonstration(equation, draw).removeprefix(FILLER)
    return {"prompt": user(equation), "completion": assistant(answer)}


def _least_similar(folder: Path, keep: float) -> list[Recipe]:
    """The share of the edits with the lowest CHES score under the SFT model."""
    rows = [json.loads(line) for line in (folder / "data/edits.jsonl").open()]
    policy = load_for_inference(str(folder / SFT))
    pairs = read([at(folder / "data/edits.jsonl")], preference_record)
    scores = ches_scores(policy, [preference_tree(policy.tokenizer, pair) for pair in pairs])
    order = sorted(range(len(rows)), key=lambda i: scores[i])
    return [rows[i] for i in sorted(order[: round(keep * len(rows))])]


def _write(path: Path, rows: Any) -> None:
    if not path.exists():
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run(folder: Path, name: str, recipe: Recipe) -> None:
    """Train and evaluate one recipe under `folder`, unless that is done."""
    output = folder / "runs" / name
    path = folder / f"{name}.yaml"
    defaults = {"seed": int((folder / "seed").read_text()), "model": {"path": SFT},
                "text": {"max_length": 96}}  # fmt: skip
    path.write_text(yaml.safe_dump({**defaults, **recipe, "output": f"runs/{name}"}))
    started = time.perf_counter()
    if not is_finished(output):
        train(load_recipe(path), overwrite=output.exists(), force=True)
        (output / "seconds").write_text(str(time.perf_counter() - started))
    reference = None if name == "sft" else str(folder / SFT)
    if not read_summary(folder / "evals" / name):
        suite = load(Suite, folder / "suite.yaml")
        run_suite(suite, str(output / "final"), folder / "evals" / name, reference=reference)
    summary = json.loads((folder / "evals" / name / "summary.json").read_text())
    scores = ", ".join(f"{k} {v:.3f}" for k, v in summary["scores"].items())
    print(f"{folder.name} {name}: {scores} ({time.perf_counter() - started:.0f} s)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", help="names of runs (default: all)")
    options = parser.parse_args()
    setup()
    for seed in options.seeds:
        folder = options.out / f"seed-{seed}"
        world(folder, seed)
        for name, recipe in {**displacement(), **preference(), **policy()}.items():
            if not options.only or name in options.only:
                run(folder, name, recipe)


if __name__ == "__main__":
    main()
