"""Distillation on the algebra world: optimizer steps to an accuracy, and what a teacher costs.

    python evidence/distillation.py --seeds 0 1 2 --out DIR   # about 15 minutes a seed on one core

Each seed trains the demo's SFT and DPO models, then GRPO from DPO with the demo's recipe: that is
the teacher, and its own steps to 0.97 are what the students' are compared with. All students start
from the DPO model. A finished run is skipped; the tables of docs/distillation.md are printed at the
end, from whatever is finished.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml

from strop.demo.write import write_demo
from strop.losses.distillation import forward_kl
from strop.model.load import load_for_inference, load_policy
from strop.model.logprobs import Head
from strop.model.network import Policy
from strop.model.save import save_network
from strop.model.teacher import LocalTeacher, beside, in_common, load_teacher
from strop.recipe.train.model import LoraRecipe, ModelRecipe
from strop.recipe.train.teacher import ModelTeacher
from strop.text.render import answer_tree
from strop.tracking.runlog import read_rows
from strop.types import Tree

Row = dict[str, Any]

ENOUGH = 0.97
STEPS = 40

SUITE: Row = {
    "name": "dev", "seed": 1,
    "tasks": [
        {"kind": "generate", "name": "greedy", "data": "data/test.jsonl",
         "sampling": {"temperature": 0.0, "max_tokens": 48},
         "scores": [{"function": "exact_answer", "name": "accuracy"}]},
        {"kind": "generate", "name": "sampled", "data": "data/test.jsonl",
         "sampling": {"temperature": 1.0, "max_tokens": 48},
         "scores": [{"file": "rewards.py", "function": "no_filler"}]},
    ],
}  # fmt: skip

OPTIM = {"learning_rate": 2e-4, "schedule": "linear", "warmup_ratio": 0.0, "final_ratio": 0.05,
         "betas": [0.9, 0.95]}  # fmt: skip
SAMPLES = {"group_size": 8, "max_tokens": 48}

STUDENTS: dict[str, Row] = {
    "on_policy_distil": {"data": "data/tasks.jsonl", "rollout": SAMPLES},
    "minillm": {"data": "data/tasks.jsonl", "rollout": SAMPLES},
    "gkd": {"data": "data/demonstrations.jsonl", "rollout": {"max_tokens": 48},
            "objective": {"own_samples": 1.0}},
    "distil": {"data": "data/demonstrations.jsonl"},
}  # fmt: skip
"""64 prompts a step; beside the two policy gradients, with 8 answers each, the records of a step
are 64 answers."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=STUDENTS, help="default: all")
    options = parser.parse_args()
    out = options.out.resolve()
    for seed in options.seeds:
        folder = out / f"seed-{seed}"
        prepare(folder, seed)
        for name in options.only or STUDENTS:
            train(folder, name, student(name, seed))
    print(table(out, options.seeds))
    print(costs(out / f"seed-{options.seeds[0]}"))
    print(shared_costs(out / f"seed-{options.seeds[0]}"))


def prepare(folder: Path, seed: int) -> None:
    """The demo's models up to GRPO, which is measured on the way."""
    if not (folder / "pipeline.yaml").exists():
        write_demo(folder, seed)
    (folder / "dev.yaml").write_text(yaml.safe_dump(SUITE, sort_keys=False))
    for name in ("sft", "dpo", "grpo"):
        recipe: Row = yaml.safe_load((folder / f"{name}.yaml").read_text())
        train(folder, name, recipe if name != "grpo" else {**recipe, "dev": dev()})


def dev() -> Row:
    return {"suite": "dev.yaml", "every": 5, "metric": "greedy/accuracy", "final": "last"}


def student(name: str, seed: int) -> Row:
    """A recipe from the DPO model, taught by the GRPO one."""
    return {
        "method": name, "output": f"runs/{name}", "seed": seed,
        "model": {"path": "runs/dpo/final"}, "teacher": "runs/grpo/final",
        "text": {"max_length": 96}, "optim": OPTIM, "dev": dev(),
        "run": {"steps": STEPS, "batch_size": 64}, **STUDENTS[name],
    }  # fmt: skip


def train(folder: Path, name: str, recipe: Row) -> None:
    """One run in a process of its own, unless it is finished."""
    if (folder / "runs" / name / "final").exists():
        return
    path = folder / f"{name}-measured.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    command = [sys.executable, "-P", "-m", "strop", "train", str(path), "--overwrite", "--force"]
    print(" ".join(command[4:]), flush=True)
    if subprocess.run(command, check=False).returncode:
        sys.exit(f"distillation: {name} failed, for the reason above")


def table(out: Path, seeds: list[int]) -> str:
    """Rows of docs/distillation.md: a figure a seed in each cell."""
    head = ("run", f"steps to {ENOUGH}", "answers to it", "accuracy at the end", "filler")
    lines = [head, ("---",) * len(head)]
    for name in ("grpo", *STUDENTS):
        found = [read(out / f"seed-{seed}" / "runs" / name) for seed in seeds]
        cells = [" ".join(str(one[key]) for one in found if one) for key in KEYS]
        lines.append((name, *cells))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


KEYS = ("steps", "answers", "accuracy", "filler")


def read(run: Path) -> Row | None:
    """What a run came to; `-` where it never got there."""
    log = run / "metrics.jsonl"
    if not log.exists():
        return None
    rows = list(read_rows(log))
    measured = [row for row in rows if "dev/greedy/accuracy" in row]
    there = next((r["step"] for r in measured if r["dev/greedy/accuracy"] >= ENOUGH), None)
    sampled = sum(row.get("completions/count", 0) for row in rows if row["step"] <= (there or 0))
    return {
        "steps": there or "-",
        "answers": f"{sampled:,}" if there and sampled else "-",
        "accuracy": f"{measured[-1]['dev/greedy/accuracy']:.3f}",
        "filler": f"{1 - measured[-1]['dev/sampled/no_filler']:.3f}",
    }


def costs(folder: Path) -> str:
    """Processor time of the forwards of 128 answers, student and teacher of one size."""
    policy = load_policy(ModelRecipe(path=str(folder / "runs/dpo/final")))
    frozen = load_for_inference(str(folder / "runs/grpo/final"))
    teacher = LocalTeacher(frozen, in_common(policy, frozen))
    trees = answers(folder, policy)

    def compared() -> torch.Tensor:
        head = Head(against=teacher.rows(trees).against(forward_kl, 1.0))
        loss = policy.score(trees, head).divergence_N
        assert loss is not None
        return loss

    own, sampled, plain, whole = timed(
        lambda: policy.score(trees),
        lambda: teacher.logprobs(trees),
        lambda: policy.score(trees).logprobs_N.sum().backward(),
        lambda: compared().sum().backward(),
    )
    return (
        f"the student's forward {own * 1e3:.1f} ms; the teacher's log-probs of sampled tokens "
        f"{sampled * 1e3:.1f} ms, {sampled / own:.2f} times as long\n"
        f"forward and backward of sft {plain * 1e3:.1f} ms, of distil {whole * 1e3:.1f} ms, "
        f"{whole / plain:.2f} times as long"
    )


def answers(folder: Path, policy: Policy) -> list[Tree]:
    """128 demonstrations as a forward reads them."""
    lines = (folder / "data/demonstrations.jsonl").read_text().splitlines()[:128]
    shown = [json.loads(line) for line in lines]
    return [answer_tree(policy.tokenizer, r["prompt"], r["completion"]) for r in shown]


def shared_costs(folder: Path) -> str:
    """An adapter as the teacher of a student with an adapter: beside it, and merged, apart."""
    recipe = ModelRecipe(path=str(folder / "runs/dpo/final"), lora=LoraRecipe(rank=16))
    with TemporaryDirectory() as at:
        made = load_policy(recipe, seed=1)
        with torch.no_grad():
            for weight in made.trainable():
                weight += 0.01 * torch.randn(weight.shape)
        save_network(made, Path(at))
        policy = load_policy(recipe)
        student = size(policy)
        merged = load_teacher(ModelTeacher(path=at), "cpu")
        shared = LocalTeacher(policy, in_common(policy), beside(policy, at))
    apart, trees = LocalTeacher(merged, in_common(policy, merged)), answers(folder, policy)
    own, beside_it, alone = timed(
        lambda: policy.score(trees),
        lambda: shared.logprobs(trees),
        lambda: apart.logprobs(trees),
    )
    return (
        f"with adapters of rank 16, the student's forward {own * 1e3:.1f} ms; a teacher beside it "
        f"{beside_it / own:.2f} times as long, apart {alone / own:.2f}\n"
        f"weights: {size(policy):,} bytes with the teacher beside, {student + size(merged):,} with "
        "a second model"
    )


def size(policy: Policy) -> int:
    """Bytes of all weights."""
    return sum(parameter.nbytes for parameter in policy.model.parameters())


def timed(*works: Callable[[], Any], rounds: int = 15) -> list[float]:
    """Median seconds of processor time, which other work on the machine does not lengthen; in turn,
    so that all meet the same machine."""
    seconds: list[list[float]] = [[] for _ in works]
    for number in range(rounds + 1):
        for work, taken in zip(works, seconds, strict=True):
            began = time.process_time()
            work()
            if number:  # the first round warms up
                taken.append(time.process_time() - began)
    return [statistics.median(taken) for taken in seconds]


if __name__ == "__main__":
    main()
