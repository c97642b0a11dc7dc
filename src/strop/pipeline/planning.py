"""The plan: what every stage will do and why, made before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from strop.curate.manifest import expect_free
from strop.errors import RecipeError
from strop.evals.gate.verdict import read_verdict
from strop.pipeline.attempts import attempt_now, check_back_to, next_attempt, recipe_of
from strop.pipeline.curating import job_of
from strop.pipeline.graph import Node, graph
from strop.pipeline.state import State, read_state
from strop.pipeline.status import Action, status_of
from strop.recipe.pipeline import DataStage, GateStage, Pipeline, SampleStage, Stage, TrainStage
from strop.tracking.notify.receivers import expect_receivers
from strop.train.preflight.refuse import refuse
from strop.train.rundir.directory import claim


@dataclass(frozen=True, slots=True)
class Planned:
    """`Planned(<stage eval-dpo>, "wait", "runs if dpo comes out different", needs=("dpo",))`.

    `run` and `resume` happen if the gates before them pass; `skip` does nothing. `wait` is decided
    when the stages it needs are done: it runs unless their outputs are unchanged.
    """

    stage: Stage
    action: Action
    why: str
    needs: tuple[str, ...]


def plan(pipeline: Pipeline) -> list[Planned]:
    """What `run_pipeline` will do; writes nothing.

    Raises `RecipeError` for stages that do not fit together, `UsageError` for a recipe that would
    be refused or an output that belongs to something else.
    """
    nodes = graph(pipeline)
    check_back_to(pipeline, nodes)
    expect_receivers(pipeline.notify, "notify")
    return _plan(pipeline, nodes, read_state(pipeline))


def _plan(pipeline: Pipeline, nodes: Sequence[Node], state: State) -> list[Planned]:
    rows: list[Planned] = []
    unsettled: set[str] = set()
    refused: str | None = None
    for node in nodes:
        stage = node.stage
        if refused is not None:
            rows.append(Planned(stage, "wait", f"{refused} has refused", node.needs))
            continue
        pending = [name for name in node.needs if name in unsettled]
        found = status_of(pipeline, stage, state, pending=pending)
        why = found.why
        if found.action != "skip":
            unsettled.add(stage.name)
            if isinstance(stage, DataStage | SampleStage):
                job = job_of(pipeline, stage)
                expect_free(job.output, overwrite=job.is_ours)
            if isinstance(stage, TrainStage):
                _expect_trainable(pipeline, stage, state, settled=not pending)
        elif isinstance(stage, GateStage) and read_verdict(stage.output)["name"] != "pass":
            again = next_attempt(pipeline, nodes, stage, state)
            if again is not None:
                return _plan(pipeline, nodes, again)
            if stage.on_refusal == "stop":
                refused = stage.name
                why += ", so the run ends here"
        rows.append(Planned(stage, found.action, why, node.needs))
    return rows


def _expect_trainable(
    pipeline: Pipeline, stage: TrainStage, state: State, *, settled: bool
) -> None:
    """Check what can be checked without the parent: the recipe passes its checks, its folder is
    free."""
    attempt = attempt_now(pipeline, stage, state, settled=settled)
    recipe = recipe_of(pipeline, stage, attempt)
    try:
        refuse(recipe, force=stage.force)
    except RecipeError as error:
        place = error.where or stage.recipe
        raise RecipeError(error.problem, where=place, fix=error.fix) from None
    claim(recipe, resume=False, overwrite=True)
