"""A suite on a model: records, their means and the divergence from a reference, on disk."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from strop.data.sources import data_hash
from strop.errors import OutputError
from strop.evals.records import RECORDS, mean_scores, write_records
from strop.evals.tasks import FORWARD, generate, prefer, score_rollouts
from strop.model.load import load_for_inference, weights_hash
from strop.model.network import Policy
from strop.recipe.eval import GenerateTask, Suite
from strop.recipe.load import digest
from strop.rewards.compose import Reward
from strop.types import Branch, EvalRecord, Rollout, Tree

SUMMARY = "summary.json"


@dataclass(frozen=True, slots=True)
class EvalResult:
    """`EvalResult({"greedy/accuracy": 0.44}, kl=0.02, records=(...))`.

    `kl` is KL(model || reference) in nats per sampled token, exact over the vocabulary at every
    sampled position; `None` without a reference.
    """

    scores: dict[str, float]
    kl: float | None
    records: tuple[EvalRecord, ...]


def run_suite(
    suite: Suite,
    model: str,
    output: str | Path,
    *,
    reference: str | None = None,
    advance: Callable[[str], None] = lambda name: None,
) -> EvalResult:
    """Run every task, write `records.jsonl` and `summary.json` under `output`, whole or not at all.

    `advance` is told the name of every finished task.
    """
    folder = Path(output)
    if folder.exists() and any(folder.iterdir()) and not (folder / SUMMARY).exists():
        raise OutputError(
            "the output folder is not empty and holds no eval", where=str(folder),
            fix="choose another output",
        )  # fmt: skip
    for task in suite.tasks:
        if isinstance(task, GenerateTask):
            Reward(task.scores)  # a misspelt reward is found before the model is loaded
    result = evaluate(suite, load_for_inference(model), reference, advance)
    temporary = folder.parent / f".{folder.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write_records(temporary / RECORDS, result.records)
    summary = {
        "suite": suite.name,
        "model": {"path": model, "sha256": weights_hash(model)},
        "reference": reference,
        "inputs": inputs_of(suite, model, reference),
        "scores": result.scores,
        "kl": result.kl,
        "items": {name: _count(result.records, name) for name in result.scores},
    }
    (temporary / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)
    return result


def evaluate(
    suite: Suite, policy: Policy, reference: str | None, advance: Callable[[str], None]
) -> EvalResult:
    """All tasks of a suite on a loaded model."""
    records: list[EvalRecord] = []
    sampled: list[Rollout] = []
    for task in suite.tasks:
        if isinstance(task, GenerateTask):
            rollouts = generate(policy, task, seed=suite.seed)
            records += score_rollouts(task, rollouts)
            if task.sampling.temperature > 0:
                sampled += rollouts
        else:
            records += prefer(policy, task)
        advance(task.name)
    kl = _divergence(policy, reference, sampled) if reference and sampled else None
    return EvalResult(mean_scores(records), kl, tuple(records))


def measure(suite: Suite, policy: Policy) -> dict[str, float]:
    """Mean score of every task of a suite, on a model that is already loaded."""
    return evaluate(suite, policy, None, lambda name: None).scores


def inputs_of(suite: Suite, model: str, reference: str | None) -> str:
    """Hash of everything the result depends on."""
    data = [data_hash([source.path for source in task.data]) for task in suite.tasks]
    rewards = [
        hashlib.sha256(Path(component.file).read_bytes()).hexdigest()
        for task in suite.tasks
        if isinstance(task, GenerateTask)
        for component in task.scores
        if component.file
    ]
    judges = [
        component.model
        for task in suite.tasks
        if isinstance(task, GenerateTask)
        for component in task.scores
    ]
    models = [weights_hash(path) for path in (model, reference, *judges) if path]
    text = json.dumps([digest(suite), data, rewards, models])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_summary(folder: str | Path) -> dict[str, Any] | None:
    """`summary.json` of an eval folder; `None` for a plain file of scores."""
    path = Path(folder) / SUMMARY
    return json.loads(path.read_text()) if path.exists() else None


@torch.no_grad()
def _divergence(policy: Policy, reference: str, rollouts: Sequence[Rollout]) -> float:
    """Mean over sampled tokens of KL(model || reference) at that position, at temperature 1."""
    other = load_for_inference(reference)
    trees = [
        Tree(r.prompt_ids, tuple(Branch(c.ids, (True,) * len(c.ids)) for c in r.completions))
        for r in rollouts
    ]
    total, count = 0.0, 0
    for start in range(0, len(trees), FORWARD):
        part = trees[start : start + FORWARD]
        kl_N = policy.score.divergence(part, other.score)
        total, count = total + float(kl_N.sum()), count + len(kl_N)
    return total / count


def _count(records: Sequence[EvalRecord], name: str) -> dict[str, int]:
    mine = [record for record in records if record.task == name]
    return {"items": len(mine), "unscored": sum(record.score is None for record in mine)}
