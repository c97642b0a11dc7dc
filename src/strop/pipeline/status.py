"""The status of a stage: up to date, half done, changed, or not decided yet."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from strop.evals.decode.study import TABLE, is_study_of, parts_of, study_inputs
from strop.evals.gate.verdict import read_verdict
from strop.evals.inputs import inputs_of
from strop.evals.journal import INPUTS, EvalJournal
from strop.evals.records import RECORDS
from strop.evals.summary import read_summary
from strop.files import SHORT, sha256_hex, sha256_of
from strop.model.load import weights_hash
from strop.pipeline.attempts import attempt_now, recipe_of
from strop.pipeline.curating import DataJob, job_of
from strop.pipeline.state import State
from strop.recipe.gate import GateRules
from strop.recipe.loading.load import digest, load
from strop.recipe.loading.paths import named_paths
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
from strop.recipe.train.methods import Recipe
from strop.registry.store import Registry
from strop.train.pin import pinned
from strop.train.rundir.checkpoint import step_of
from strop.train.rundir.directory import LINEAGE, RECIPE, differing, is_finished, run_inputs

Action = Literal["run", "resume", "skip", "wait"]


@dataclass(frozen=True, slots=True)
class StageStatus:
    """`StageStatus("resume", "half done at step 120")`."""

    action: Action
    why: str


def status_of(
    pipeline: Pipeline, stage: Stage, state: State, *, pending: Sequence[str] = ()
) -> StageStatus:
    """What the stage has to do, judged by the files on disk.

    `pending` are stages that it needs and that will run first. Unless the stage has to run in any
    case, their outputs decide whether it does: then the action is `wait`.
    """
    if isinstance(stage, TrainStage):
        attempt = attempt_now(pipeline, stage, state, settled=not pending)
        recipe = pinned(recipe_of(pipeline, stage, attempt), force=stage.force)
        return _train(recipe, attempt, pending, moved=recipe.output in state.aside)
    if isinstance(stage, DataStage | SampleStage):
        job = job_of(pipeline, stage)
        moved = stage.output in state.aside
        return _data(job, None if moved else state.seen.get(stage.name), pending)
    if isinstance(stage, EvalStage):
        return _eval(stage, pending, moved=stage.output in state.aside)
    if isinstance(stage, DecodeStage):
        return _decode(stage, pending, moved=stage.output in state.aside)
    if isinstance(stage, GateStage):
        return _gate(stage, state, pending)
    return _promote(stage, pipeline, state, pending)


def _waits(pending: Sequence[str]) -> StageStatus:
    return StageStatus("wait", f"runs if {' or '.join(pending)} comes out different")


def _train(recipe: Recipe, attempt: int, pending: Sequence[str], *, moved: bool) -> StageStatus:
    folder = Path(recipe.output)
    before = None if moved else _identity(folder)
    if before is None:
        return StageStatus("run", "never ran" if attempt == 1 else f"attempt {attempt}")
    finished = is_finished(folder)
    changed = differing(before["recipe"], recipe, finished=finished)
    if changed:
        return StageStatus("run", f"recipe changed: {_few(list(changed))}")
    if pending:
        return _waits(pending)
    other = _other_inputs(before["lineage"], run_inputs(recipe))
    if other:
        return StageStatus("run", _few(other))
    if finished:
        return StageStatus("skip", "up to date")
    latest = folder / "latest"
    if not latest.is_symlink():
        return StageStatus("run", "began, but saved no checkpoint")
    return StageStatus("resume", f"half done at step {step_of(Path(os.readlink(latest)))}")


def _identity(folder: Path) -> dict[str, Any] | None:
    """The recorded inputs of the run in this folder; `None` if they were never completely
    written."""
    try:
        lineage = json.loads((folder / LINEAGE).read_text())
        recipe = yaml.safe_load((folder / RECIPE).read_text())
    except (OSError, json.JSONDecodeError, yaml.YAMLError):
        return None
    return {"lineage": lineage, "recipe": recipe} if isinstance(recipe, dict) else None


def _other_inputs(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`["data changed: pairs.jsonl"]`."""
    changed = [name for name in now if before.get(name) != now[name]]
    said = []
    for name in changed:
        if name == "data":
            known = before.get("data", [])
            files = [
                Path(entry.get("path", entry.get("hub"))).name
                for entry in now["data"]
                if entry not in known
            ]
            said.append(f"data changed: {', '.join(files)}" if files else "data changed")
        else:
            said.append({"parent": "other parent weights"}.get(name, f"{name} changed"))
    return said


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _data(job: DataJob, seen: str | None, pending: Sequence[str]) -> StageStatus:
    if seen is None or not job.is_ours:
        again = job.is_underway and not pending
        return StageStatus("resume", "half done") if again else StageStatus("run", "never ran")
    if pending:
        return _waits(pending)
    if seen == job.seen():
        return StageStatus("skip", "up to date")
    if job.is_underway:
        return StageStatus("resume", "half done")
    return StageStatus("run", job.changed())


def _eval(stage: EvalStage, pending: Sequence[str], *, moved: bool) -> StageStatus:
    before = None if moved else read_summary(stage.output)
    if pending:
        return StageStatus("run", "never ran") if before is None else _waits(pending)
    inputs = inputs_of(load(Suite, stage.suite), stage.model, stage.reference)
    if before is not None and before["inputs"] == inputs:
        return StageStatus("skip", "up to date")
    stamp = EvalJournal(Path(stage.output), inputs).folder / INPUTS
    if stamp.exists() and stamp.read_text() == inputs:
        return StageStatus("resume", "half measured")
    if before is None:
        return StageStatus("run", "never ran")
    if before["model"]["sha256"] != weights_hash(stage.model):
        return StageStatus("run", "other weights")
    return StageStatus("run", "the suite, what it reads or the reference changed")


def _decode(stage: DecodeStage, pending: Sequence[str], *, moved: bool) -> StageStatus:
    output = Path(stage.output)
    begun = parts_of(output).exists() and not pending
    if moved or not (output / TABLE).exists():
        return StageStatus("resume", "half sampled") if begun else StageStatus("run", "never ran")
    if pending:
        return _waits(pending)
    inputs = study_inputs(load(Study, stage.study), model=stage.model, base=stage.base)
    if is_study_of(output, inputs):
        return StageStatus("skip", "up to date")
    return StageStatus("run", "the study, its data or a model changed")


def _gate(stage: GateStage, state: State, pending: Sequence[str]) -> StageStatus:
    seen = state.seen.get(stage.name)
    if seen is None or stage.output in state.aside or not Path(stage.output).exists():
        return StageStatus("run", "not judged yet")
    if pending:
        return _waits(pending)
    if seen != seen_by_gate(stage):
        return StageStatus("run", "the policy or the evals changed")
    return StageStatus("skip", f"up to date: {read_verdict(stage.output)['name']}")


def seen_by_gate(stage: GateStage) -> str:
    """Hash of everything a verdict depends on, and of the verdict; who is told it does not
    count."""
    policy = load(GateRules, stage.policy).model_copy(update={"notify": []})
    evals = [stage.base, stage.candidate, *(named.path for named in named_paths(policy))]
    verdict = Path(stage.output).read_bytes()
    return _hash([digest(policy), *map(_scores_hash, evals), sha256_hex(verdict, SHORT)])


def _scores_hash(path: str) -> str:
    """Hash of an eval folder's records, model and inputs; of any other file's bytes."""
    if not Path(path).is_dir():
        return sha256_of(Path(path))[:SHORT]
    summary = read_summary(path) or {}
    records = Path(path) / RECORDS
    known = sha256_of(records)[:SHORT] if records.exists() else ""
    return _hash([known, summary.get("model"), summary.get("inputs")])


def _promote(
    stage: PromoteStage, pipeline: Pipeline, state: State, pending: Sequence[str]
) -> StageStatus:
    if pending:
        return StageStatus("wait", f"after {' and '.join(pending)}")
    registry = Path(pipeline.registry)
    current = Registry(registry).current(stage.entry) if registry.exists() else None
    if current is None:
        return StageStatus("run", "not promoted yet")
    now = seen_by_promotion(stage)
    if now in (state.seen.get(stage.name), _seen(current.weights, current.verdict)):
        return StageStatus("skip", "promoted before")
    return StageStatus("run", "other weights or another verdict")


def seen_by_promotion(stage: PromoteStage) -> str:
    """Hash of everything a promotion depends on."""
    return _seen(weights_hash(stage.model), read_verdict(stage.verdict))


def _seen(weights: str, verdict: Mapping[str, Any] | None) -> str:
    """Hash without the verdict's remarks, because they count the attempts on the evidence."""
    return _hash([weights, {**(verdict or {}), "remarks": []}])


def _hash(value: Any) -> str:
    return sha256_hex(json.dumps(value, sort_keys=True), SHORT)
