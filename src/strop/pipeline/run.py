"""Runs stages in order: skips finished ones, resumes interrupted ones, retries refused ones if
asked to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from strop.errors import StoppedByAlarm, StoppedBySignal, StropError
from strop.evals.decode.study import check_study, read_sentences, run_study
from strop.evals.gate import EXIT_CODES
from strop.evals.gate.promote import promote
from strop.evals.gate.verdict import read_verdict, run_gate
from strop.evals.run import run_suite
from strop.evals.summary import read_summary
from strop.pipeline.attempts import archive, attempt_now, next_attempt, recipe_of
from strop.pipeline.curating import job_of
from strop.pipeline.graph import graph
from strop.pipeline.planning import Planned, plan
from strop.pipeline.state import State, read_state, state_file, write_state
from strop.pipeline.status import seen_by_gate, seen_by_promotion, status_of
from strop.recipe.gate import GateRules
from strop.recipe.loading.load import load
from strop.recipe.pipeline import (
    DataStage,
    DecodeStage,
    EvalStage,
    GateStage,
    Pipeline,
    PromoteStage,
    SampleStage,
    Stage,
    TrainStage,
)
from strop.recipe.study import Study
from strop.recipe.suite import Suite
from strop.registry.store import Registry
from strop.tracking.notify.notifier import Notifier
from strop.train.preflight.prepared import Prepared
from strop.train.run import train
from strop.types import StepRecord

Outcome = Literal["done", "skipped", "refused"]


@dataclass(frozen=True, slots=True)
class Observer:
    """Callbacks that report progress to a terminal, a test or a notebook."""

    on_plan: Callable[[Sequence[Planned]], None] = lambda plan: None
    on_stage: Callable[[Stage], None] = lambda stage: None
    on_start: Callable[[Prepared, int], None] = lambda prepared, step: None
    on_step: Callable[[StepRecord], None] = lambda record: None
    on_outcome: Callable[[Stage, Outcome, str], None] = lambda stage, outcome, said: None


class GateRefused(StropError):  # noqa: N818 - a verdict, not an error
    """A gate did not pass, may not go back (again), and its stage has `on_refusal: stop`."""

    def __init__(self, verdict: dict[str, Any], stage: str) -> None:
        fix = "read the eval records of both sides, mend the recipe and run again"
        super().__init__(verdict["sentence"], where=f"gate {stage}", fix=fix)
        self.exit_code = EXIT_CODES[verdict["name"]]


def run_pipeline(pipeline: Pipeline, observer: Observer) -> None:
    """Plan, then run every stage; raises `GateRefused` at a gate that does not pass.

    It can be interrupted at any moment; called again, it continues there.
    """
    archive_rest(pipeline)
    observer.on_plan(plan(pipeline))
    with notifier_of(pipeline) as notifier:
        _run_stages(pipeline, observer, notifier)


def notifier_of(pipeline: Pipeline) -> Notifier:
    """Who is told of the pipeline."""
    return Notifier(
        pipeline.notify,
        pipeline.name,
        where="notify",
        log=state_file(pipeline).with_suffix(".notify.jsonl"),
        facts={"pipeline": pipeline.name, "registry": pipeline.registry},
        stops=(StoppedBySignal, StoppedByAlarm, GateRefused),
    )


def _run_stages(pipeline: Pipeline, observer: Observer, notifier: Notifier) -> None:
    names = [stage.name for stage in pipeline.stages]
    number = 0
    while number < len(names):
        stage = pipeline.stages[number]
        observer.on_stage(stage)
        outcome, said = _run_stage(pipeline, stage, observer, notifier)
        back = _go_back(pipeline, stage) if isinstance(stage, GateStage) else None
        if isinstance(stage, GateStage) and back is None:
            _stop_if_refused(stage)
        number = number + 1 if back is None else names.index(back)
        onward = "" if back is None else f" Back to {back}."
        observer.on_outcome(stage, outcome, said + onward)


def archive_rest(pipeline: Pipeline) -> None:
    """Finish a move that was interrupted."""
    state = read_state(pipeline)
    if state.aside:
        archive(state.aside)
        write_state(pipeline, replace(state, aside={}))


def _run_stage(
    pipeline: Pipeline, stage: Stage, observer: Observer, notifier: Notifier
) -> tuple[Outcome, str]:
    state = read_state(pipeline)
    if isinstance(stage, TrainStage):
        return _train(pipeline, stage, state, observer)
    skips = status_of(pipeline, stage, state).action == "skip"
    if isinstance(stage, DataStage | SampleStage):
        return _curate(pipeline, stage, state, skips=skips)
    if isinstance(stage, EvalStage):
        return _eval(stage, skips=skips)
    if isinstance(stage, DecodeStage):
        return _decode(stage, skips=skips)
    if isinstance(stage, GateStage):
        return _gate(pipeline, stage, state, notifier, skips=skips)
    return _promote(pipeline, stage, state, skips=skips)


def _train(
    pipeline: Pipeline, stage: TrainStage, state: State, observer: Observer
) -> tuple[Outcome, str]:
    action = status_of(pipeline, stage, state).action
    attempt = attempt_now(pipeline, stage, state, settled=True)
    recipe = recipe_of(pipeline, stage, attempt)
    tried = f" (attempt {attempt})" if attempt > 1 else ""
    if action == "skip":
        return "skipped", f"{recipe.output}/final{tried}"
    final = train(
        recipe,
        resume=action == "resume",
        overwrite=action == "run",
        force=stage.force,
        on_start=observer.on_start,
        on_step=observer.on_step,
    )
    return "done", f"{final}{tried}"


def _curate(
    pipeline: Pipeline, stage: DataStage | SampleStage, state: State, *, skips: bool
) -> tuple[Outcome, str]:
    job = job_of(pipeline, stage)
    if skips:
        return "skipped", job.counted()
    said = job.run()
    write_state(pipeline, state.with_seen(stage.name, job.seen()))
    return "done", said


def _eval(stage: EvalStage, *, skips: bool) -> tuple[Outcome, str]:
    if skips:
        return "skipped", _scores((read_summary(stage.output) or {})["scores"])
    suite = load(Suite, stage.suite)
    result = run_suite(suite, stage.model, stage.output, reference=stage.reference)
    return "done", _scores(result.scores)


def _decode(stage: DecodeStage, *, skips: bool) -> tuple[Outcome, str]:
    if not skips:
        study = load(Study, stage.study)
        run_study(check_study(study, model=stage.model, base=stage.base), stage.output)
    said = read_sentences(stage.output)
    return "skipped" if skips else "done", " ".join(said)


def _scores(scores: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in scores.items())


def _gate(
    pipeline: Pipeline, stage: GateStage, state: State, notifier: Notifier, *, skips: bool
) -> tuple[Outcome, str]:
    if not skips:
        policy = load(GateRules, stage.policy)
        run_gate(policy, stage.base, stage.candidate, stage.output, registry=pipeline.registry)
        write_state(pipeline, state.with_seen(stage.name, seen_by_gate(stage)))
    verdict = read_verdict(stage.output)
    if not skips:
        text = f"{pipeline.name}, {stage.name}: {verdict['sentence']}"
        notifier.tell("verdict", verdict["name"], text, gate=stage.name, verdict=stage.output)
    if verdict["name"] != "pass":
        return "refused", verdict["sentence"]
    return "skipped" if skips else "done", verdict["sentence"]


def _go_back(pipeline: Pipeline, gate: GateStage) -> str | None:
    """After a refusal: archive the attempt and return the name of the stage to go back to, if
    any."""
    if gate.back_to is None or read_verdict(gate.output)["name"] == "pass":
        return None
    state = next_attempt(pipeline, graph(pipeline), gate, read_state(pipeline))
    if state is None:
        return None
    write_state(pipeline, state)
    archive_rest(pipeline)
    return gate.back_to.stage


def _stop_if_refused(gate: GateStage) -> None:
    verdict = read_verdict(gate.output)
    if verdict["name"] != "pass" and gate.on_refusal == "stop":
        raise GateRefused(verdict, gate.name)


def _promote(
    pipeline: Pipeline, stage: PromoteStage, state: State, *, skips: bool
) -> tuple[Outcome, str]:
    if skips:
        current = Registry(pipeline.registry).current(stage.entry)
        return "skipped", f"{stage.entry} is {current.id if current else 'nothing'}"
    entry = promote(stage.model, stage.entry, verdict=stage.verdict, registry=pipeline.registry)
    write_state(pipeline, state.with_seen(stage.name, seen_by_promotion(stage)))
    return "done", f"{stage.entry} is now {entry.id}"
