"""A small pipeline that trains twice in a second or two, for the tests of pipelines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from strop.demo.world import all_equations, assistant, solution, user
from strop.pipeline import Observer, Outcome, run_pipeline
from strop.recipe.loading.load import load
from strop.recipe.pipeline import Pipeline

EQUATIONS = all_equations()[::97]
HELD_OUT = all_equations()[1::97]
TWICE = """
name: twice
stages:
  - {kind: eval, name: eval-base, suite: suite.yaml, model: MODEL, output: evals/base}
  - {kind: train, name: sft, recipe: sft.yaml}
  - {kind: eval, name: eval-sft, suite: suite.yaml, model: runs/sft/final, output: evals/sft}
  - {kind: gate, name: gate-sft, policy: policy.yaml, base: evals/base, candidate: evals/sft,
     output: gates/sft.json}
  - {kind: promote, name: promote-sft, model: runs/sft/final, entry: twice,
     verdict: gates/sft.json}
  - {kind: train, name: dpo, recipe: dpo.yaml}
  - {kind: eval, name: eval-dpo, suite: suite.yaml, model: runs/dpo/final, output: evals/dpo}
  - {kind: gate, name: gate-dpo, policy: policy.yaml, base: evals/sft, candidate: evals/dpo,
     output: gates/dpo.json}
  - {kind: promote, name: promote-dpo, model: runs/dpo/final, entry: twice,
     verdict: gates/dpo.json}
"""


def write_twice(folder: Path, model: Path) -> Path:
    """SFT and DPO with an eval, a gate that passes and a promotion each; returns the pipeline."""
    demonstrations = [{"prompt": user(e), "completion": assistant(solution(e))} for e in EQUATIONS]
    pairs, held_out = (
        [{"prompt": user(e), "chosen": solution(e), "rejected": "7 7 7"} for e in equations]
        for equations in (EQUATIONS, HELD_OUT)
    )
    data = {"sft.jsonl": demonstrations, "pairs.jsonl": pairs, "held_out.jsonl": held_out}
    for name, rows in data.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = "run: {steps: 6, batch_size: 4, save_every: 2}"
    files = {
        "sft.yaml": "method: sft\noutput: runs/sft\nmodel: MODEL\ndata: sft.jsonl\n"
        f"optim: {{learning_rate: 1.0e-3}}\n{run}\n",
        "dpo.yaml": "method: dpo\noutput: runs/dpo\nmodel: runs/sft/final\ndata: pairs.jsonl\n"
        f"optim: {{learning_rate: 1.0e-5}}\n{run}\n",
        "suite.yaml": "name: small\ntasks:\n"
        "  - {kind: preference, name: pairs, data: held_out.jsonl, per_token: true}\n",
        "policy.yaml": "guardrails: [{score: pairs, margin: 0.9}]\n",
        "pipeline.yaml": TWICE,
    }
    for name, text in files.items():
        (folder / name).write_text(text.replace("MODEL", str(model)))
    return folder / "pipeline.yaml"


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def run(file: Path, **observed: Callable[..., Any]) -> dict[str, Outcome]:
    """Run a pipeline file; the last outcome of every stage."""
    outcomes: dict[str, Outcome] = {}
    observer = Observer(
        on_outcome=lambda stage, outcome, said: outcomes.__setitem__(stage.name, outcome),
        **observed,
    )
    run_pipeline(load(Pipeline, file), observer)
    return outcomes


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
