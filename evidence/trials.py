"""A/A trials on the algebra world: does the gate take a merely retrained model for better or worse?

    python evidence/trials.py --out DIR                  # 48 short trainings, half an hour
    python evidence/trials.py --report DIR               # the tables of docs/evidence.md

Base, noise runs and candidates are one recipe with other seeds. The displaced and the hacked model
of the demo have to be refused by the same gate (they come from `strop demo --out DIR`).
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from strop.cli.show import setup
from strop.demo.write import write_demo
from strop.evals.gate import gate
from strop.evals.gate.judge import Records
from strop.evals.gate.verdict import run_gate
from strop.evals.records import read_records
from strop.evals.run import run_suite
from strop.evals.summary import read_summary
from strop.recipe.gate import GateRules, Guardrail, Target
from strop.recipe.loading.load import load, load_recipe
from strop.recipe.suite import Suite
from strop.train.run import train
from strop.train.rundir.directory import is_finished

NOISE = 3
"""Retrained models whose differences from the base are the noise floor."""

TRIALS = 20

STAGES = {"sft": ["run.steps=300"], "dpo": ["model.path=runs/sft-0/final"]}
"""What is retrained: a short SFT from the raw model, and DPO from the base SFT."""

POLICY = GateRules(
    targets=[Target(score="greedy/accuracy")],
    guardrails=[
        Guardrail(score="sampled/accuracy", margin=0.08),
        Guardrail(score="sampled/no_filler", margin=0.08),
    ],
)


def measured(folder: Path, stage: str, seed: int) -> Path:
    """The eval of one training, made where it is missing."""
    name = f"{stage}-{seed}"
    options = [*STAGES[stage], f"seed={seed}", f"output=runs/{name}"]
    recipe = load_recipe(folder / f"{stage}.yaml", options)
    output = Path(recipe.output)
    if not is_finished(output):
        train(recipe, overwrite=output.exists())
    scores = folder / "evals" / name
    if not read_summary(scores):
        run_suite(load(Suite, folder / "suite.yaml"), str(output / "final"), scores)
    return scores


def trials(records: Sequence[Records], first: int, *, floor: bool) -> Counter[str]:
    """What the gate says of 20 retrained models against the base `first`; the next three are the
    A/A runs."""
    order = [(first + place) % len(records) for place in range(len(records))]
    base, noise, candidates = order[0], order[1 : NOISE + 1], order[NOISE + 1 :]
    runs = [records[n] for n in noise] if floor else []
    return Counter(gate(records[base], records[n], POLICY, noise=runs).name for n in candidates)


def report(folder: Path) -> None:
    """20 trials with seed 0 as the base; the same with every seed in turn as the base."""
    print("| retrained | noise floor | pass | inconclusive | regressed | all bases | worst |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for stage in STAGES:
        seeds = range(NOISE + 1 + TRIALS)
        records = [read_records(measured(folder, stage, seed)) for seed in seeds]
        for floor in (False, True):
            found = [trials(records, first, floor=floor) for first in seeds]
            row = [found[0][name] for name in ("pass", "inconclusive", "regressed")]
            wrong = [one["pass"] + one["regressed"] for one in found]
            said = f"from {NOISE} A/A runs" if floor else "none"
            share = f"{sum(wrong) / (TRIALS * len(found)):.1%} | {max(wrong)} of {TRIALS}"
            print(f"| {stage}, new seed | {said} | {' | '.join(map(str, row))} | {share} |")
    for name, base in (("careless", "sft"), ("hacked", "dpo")):
        scores = folder / "evals" / name
        if read_summary(scores):
            verdict = run_gate(POLICY, folder / "evals" / base, scores)
            print(f"\n{name}: {verdict.sentence}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write the world here, train and measure")
    parser.add_argument("--report", type=Path, help="print the tables of a finished folder")
    parser.add_argument("--only", choices=list(STAGES), help="one stage (for a second process)")
    given = parser.parse_args()
    setup()
    if given.out:
        if not (given.out / "suite.yaml").exists():
            write_demo(given.out, seed=0)
        for stage in [given.only] if given.only else STAGES:
            for seed in range(NOISE + 1 + TRIALS):
                measured(given.out, stage, seed)
    if given.report:
        report(given.report)


if __name__ == "__main__":
    main()
