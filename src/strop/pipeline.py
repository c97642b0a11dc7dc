"""Stages in order; done ones skipped, half-done ones resumed, a failed gate stops everything."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from strop.errors import StropError
from strop.evals.gate import EXIT_CODES
from strop.evals.run import inputs_of, read_summary, run_suite
from strop.evals.verdict import read_verdict, run_gate
from strop.model.load import weights_hash
from strop.recipe.eval import Policy, Suite
from strop.recipe.load import digest, load, load_recipe
from strop.recipe.methods import Recipe
from strop.recipe.pipeline import EvalStage, GateStage, Pipeline, PromoteStage, Stage, TrainStage
from strop.registry.lineage import ancestry
from strop.registry.store import Registry
from strop.train.directory import LINEAGE, is_finished, run_inputs
from strop.train.prepare import Prepared
from strop.train.run import train
from strop.types import StepRecord, Verdict

Outcome = Literal["done", "skipped", "refused"]


@dataclass(frozen=True, slots=True)
class Observer:
    """Who is told what happens: a terminal, a test, a notebook."""

    on_stage: Callable[[Stage], None] = lambda stage: None
    on_start: Callable[[Prepared, int], None] = lambda prepared, step: None
    on_step: Callable[[StepRecord], None] = lambda record: None
    on_outcome: Callable[[Stage, Outcome, str], None] = lambda stage, outcome, said: None


class GateRefused(StropError):  # noqa: N818 - a verdict, not an error
    """A gate did not pass and its stage says `on_refusal: stop`."""

    def __init__(self, verdict: Verdict, stage: str) -> None:
        fix = "read the eval records of both sides, mend the recipe and run again"
        super().__init__(verdict.sentence, where=f"gate {stage}", fix=fix)
        self.exit_code = EXIT_CODES[verdict.name]


def run_pipeline(pipeline: Pipeline, observer: Observer) -> None:
    """Run every stage; raises `GateRefused` at a gate that does not pass."""
    for stage in pipeline.stages:
        observer.on_stage(stage)
        if isinstance(stage, TrainStage):
            outcome, said = _train(stage, observer)
        elif isinstance(stage, EvalStage):
            outcome, said = _eval(stage)
        elif isinstance(stage, GateStage):
            outcome, said = _gate(stage)
        else:
            outcome, said = _promote(stage, pipeline.registry)
        observer.on_outcome(stage, outcome, said)


def _train(stage: TrainStage, observer: Observer) -> tuple[Outcome, str]:
    recipe = load_recipe(stage.recipe)
    folder = Path(recipe.output)
    same = _same_inputs(folder, recipe)
    if same and is_finished(folder):
        return "skipped", str(folder / "final")
    final = train(
        recipe,
        resume=same,
        overwrite=not same,
        force=stage.force,
        on_start=observer.on_start,
        on_step=observer.on_step,
    )
    return "done", str(final)


def _same_inputs(folder: Path, recipe: Recipe) -> bool:
    """Whether the run in this folder began from the same recipe, data, rewards and parent."""
    if not (folder / LINEAGE).exists():
        return False
    lineage = json.loads((folder / LINEAGE).read_text())
    now = {"recipe": digest(recipe), **run_inputs(recipe)}
    return all(lineage[name] == value for name, value in now.items())


def _eval(stage: EvalStage) -> tuple[Outcome, str]:
    suite = load(Suite, stage.suite)
    before = read_summary(stage.output)
    if before and before["inputs"] == inputs_of(suite, stage.model, stage.reference):
        return "skipped", _scores(before["scores"])
    result = run_suite(suite, stage.model, stage.output, reference=stage.reference)
    return "done", _scores(result.scores)


def _scores(scores: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in scores.items())


def _gate(stage: GateStage) -> tuple[Outcome, str]:
    verdict = run_gate(load(Policy, stage.policy), stage.base, stage.candidate, stage.output)
    if verdict.name == "pass":
        return "done", verdict.sentence
    if stage.on_refusal == "stop":
        raise GateRefused(verdict, stage.name)
    return "refused", verdict.sentence


def _promote(stage: PromoteStage, registry: str) -> tuple[Outcome, str]:
    store = Registry(registry)
    weights = weights_hash(stage.model)
    if Path(registry).exists() and stage.entry in store.names():
        current = store.current(stage.entry)
        if current is not None and current.weights == weights:
            return "skipped", f"{stage.entry} is {current.id}"
    entry = store.promote(
        stage.entry,
        weights=weights,
        path=stage.model,
        lineage=ancestry(stage.model),
        verdict=read_verdict(stage.verdict),
    )
    return "done", f"{stage.entry} is now {entry.id}"
