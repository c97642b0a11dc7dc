"""Retries of a training stage: its current attempt, that attempt's recipe, and the archive of
earlier ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from strop.curate.manifest import files_beside
from strop.errors import RecipeError, UsageError
from strop.files import SHORT, move, sha256_hex, write_whole
from strop.pipeline.graph import Node, Read, dependents, expect_there
from strop.pipeline.state import Attempt, State
from strop.recipe.loading.load import digest, load_recipe
from strop.recipe.loading.paths import named_paths
from strop.recipe.pipeline import BackTo, GateStage, Pipeline, TrainStage
from strop.recipe.train.methods import Recipe
from strop.train.pin import pinned
from strop.train.preflight.refuse import refuse
from strop.train.rundir.directory import decisive, run_inputs


def sender(pipeline: Pipeline, name: str) -> BackTo | None:
    """The rule of the gate that goes back to this stage, if there is one."""
    for stage in pipeline.stages:
        if isinstance(stage, GateStage) and stage.back_to and stage.back_to.stage == name:
            return stage.back_to
    return None


def recipe_of(pipeline: Pipeline, stage: TrainStage, attempt: int) -> Recipe:
    """The recipe of an attempt; the first attempt's is the unchanged file."""
    recipe = load_recipe(stage.recipe)
    back = sender(pipeline, stage.name)
    if back is None or attempt == 1:
        return recipe
    further = attempt - 1
    lists = back.set
    own = lists[further - 1] if further <= len(lists) else [f"seed={recipe.seed + further}"]
    return load_recipe(stage.recipe, own)


def attempt_now(pipeline: Pipeline, stage: TrainStage, state: State, *, settled: bool) -> int:
    """The current attempt of the stage; 1 again if its recipe, data or parent changed.

    Without `settled` its parent may still change, so it is not compared.
    """
    known = state.attempts.get(stage.name)
    if known is None or sender(pipeline, stage.name) is None:
        return 1
    return known.number if not settled or known.key == _key(stage) else 1


def next_attempt(
    pipeline: Pipeline, nodes: Sequence[Node], gate: GateStage, state: State
) -> State | None:
    """The state after this gate has sent the pipeline back; `None` if it may not go back
    (again)."""
    if gate.back_to is None:
        return None
    stage = next(s for s in pipeline.stages if s.name == gate.back_to.stage)
    assert isinstance(stage, TrainStage)
    number = attempt_now(pipeline, stage, state, settled=True)
    if number > gate.back_to.times:
        return None
    names = [node.stage.name for node in nodes]
    again = [
        output
        for node in nodes[: names.index(gate.name) + 1]
        if node.stage.name in dependents(nodes, stage.name)
        for output in _outputs(node)
    ]
    return state.with_attempt(stage.name, Attempt(number + 1, _key(stage)), _free_names(again))


def _outputs(node: Node) -> list[Path]:
    """Paths that a stage writes: a gate also a page beside its verdict, a data verb also a manifest
    beside a single file."""
    if node.writes is None:
        return []
    output = Path(node.writes)
    pages = [output.with_suffix(".html")] if isinstance(node.stage, GateStage) else []
    beside = files_beside(output).values() if output.suffix == ".jsonl" else []
    return [output, *pages, *(path for path in beside if path != output)]


def archive(moves: Mapping[str, str]) -> None:
    """Move a refused attempt's outputs. If interrupted, call it again.

    If an adapter's base moved too, its config gets the new path.
    """
    for here, there in moves.items():
        if Path(here).exists():
            move(Path(here), Path(there))
    for there in moves.values():
        config = Path(there) / "final" / "adapter_config.json"
        if config.exists():
            _follow_base(config, moves)


def check_back_to(pipeline: Pipeline, nodes: Sequence[Node]) -> None:
    """Refuse to go back to an invalid stage, or with attempts that would repeat a run."""
    gates = [stage for stage in pipeline.stages if isinstance(stage, GateStage) and stage.back_to]
    used: dict[str, str] = {}
    for gate in gates:
        assert gate.back_to is not None
        where = pipeline.place(gate.name, "back_to", "stage")
        target = _target(pipeline, gate, gate.back_to.stage, where)
        if gate.name not in dependents(nodes, target.name):
            raise RecipeError(
                f"gate {gate.name} goes back to {target.name}, but judges nothing made from it",
                where=where,
                fix="name the training stage whose model the candidate is",
            )
        if target.name in used:
            raise RecipeError(
                f"gates {used[target.name]} and {gate.name} both go back to {target.name}",
                where=where,
                fix="let one of them do so",
            )
        used[target.name] = gate.name
        _check_attempts(pipeline, nodes, gate, target)


def _target(pipeline: Pipeline, gate: GateStage, name: str, where: str) -> TrainStage:
    names = [stage.name for stage in pipeline.stages]
    earlier = pipeline.stages[: names.index(gate.name)]
    trained = [stage for stage in earlier if isinstance(stage, TrainStage)]
    for stage in trained:
        if stage.name == name:
            return stage
    known = ", ".join(stage.name for stage in trained) or "none here"
    if name not in names:
        problem = f"there is no stage {name!r} to go back to"
    elif name in [stage.name for stage in earlier]:
        problem = f"stage {name} trains nothing, so it would come out the same again"
    else:
        problem = f"stage {name} does not come before gate {gate.name}"
    raise RecipeError(problem, where=where, fix=f"earlier training stages: {known}")


def _check_attempts(
    pipeline: Pipeline, nodes: Sequence[Node], gate: GateStage, stage: TrainStage
) -> None:
    """Raise unless every attempt's recipe loads, passes its checks, reads existing files, writes to
    the same output and differs from the others."""
    assert gate.back_to is not None
    back = gate.back_to
    first = load_recipe(stage.recipe)
    seen = {digest(first): 1}
    for attempt in range(2, back.times + 2):
        given = attempt - 2 < len(back.set)
        loc = ("back_to", "set", attempt - 2) if given else ("back_to", "times")
        where = pipeline.place(gate.name, *loc)
        try:
            recipe = recipe_of(pipeline, stage, attempt)
            refuse(recipe, force=stage.force)
        except UsageError as error:
            raise RecipeError(f"attempt {attempt}: {error}", where=where) from None
        if recipe.output != first.output:
            raise RecipeError(
                f"attempt {attempt} would write to another `output`", where=where,
                fix="drop it: earlier attempts are kept as <output>.attempt-1 and so on",
            )  # fmt: skip
        for named in named_paths(recipe):
            expect_there(nodes, Read(named.path, where, named.is_model))
        if digest(recipe) in seen:
            raise RecipeError(
                f"attempt {attempt} would be the same run as attempt {seen[digest(recipe)]}",
                where=where,
                fix="override something, or drop the list: then the seed is raised",
            )
        seen[digest(recipe)] = attempt


def _key(stage: TrainStage) -> str:
    recipe = pinned(load_recipe(stage.recipe), force=stage.force)
    text = json.dumps([decisive(recipe.plain()), run_inputs(recipe)], sort_keys=True)
    return sha256_hex(text, SHORT)


def _free_names(outputs: Sequence[Path]) -> dict[str, str]:
    """`runs/dpo.attempt-<n>`, `gates/dpo.attempt-<n>.json` with the first n that is free for all
    outputs; folders of runs and evals have no suffix."""
    number = 1
    while any(_kept(output, number).exists() for output in outputs):
        number += 1
    return {str(output): str(_kept(output, number)) for output in outputs}


def _kept(output: Path, number: int) -> Path:
    ending = output.suffix if output.suffix in (".json", ".html", ".jsonl") else ""
    return output.with_name(f"{output.name.removesuffix(ending)}.attempt-{number}{ending}")


def _follow_base(file: Path, moves: Mapping[str, str]) -> None:
    config = json.loads(file.read_text())
    base = Path(config["base_model_name_or_path"])
    for here, there in moves.items():
        if base.is_relative_to(here):
            config["base_model_name_or_path"] = str(Path(there) / base.relative_to(here))
            write_whole(file, json.dumps(config, indent=2))
