"""The graph of stages: a stage needs the stages whose outputs it reads.

Stages run in the order of the list. Refused are a stage that reads the output of a later one (and
so every cycle), two stages that write to one place, and paths that neither exist nor are written by
a stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from strop.errors import RecipeError
from strop.pipeline.curating import job_of
from strop.recipe.base import Strict
from strop.recipe.gate import GateRules
from strop.recipe.loading.load import load, load_recipe, read_yaml
from strop.recipe.loading.paths import is_there, named_paths
from strop.recipe.pipeline import (
    DataStage,
    DecodeStage,
    EvalStage,
    GateStage,
    Pipeline,
    SampleStage,
    Stage,
    TrainStage,
)
from strop.recipe.study import Study
from strop.recipe.suite import Suite
from strop.train.rundir.directory import FOLDERS, OURS


@dataclass(frozen=True, slots=True)
class Read:
    """`Read("runs/sft/final", where="/work/dpo.yaml:4", is_model=True)`."""

    path: str
    where: str
    is_model: bool


@dataclass(frozen=True, slots=True)
class Node:
    """`Node(<stage dpo>, writes="/work/runs/dpo", reads=(...), needs=("sft",))`.

    `writes` is a folder, a gate's file, or `None` for a promotion; `needs` are the names of earlier
    stages.
    """

    stage: Stage
    writes: str | None
    reads: tuple[Read, ...]
    needs: tuple[str, ...] = ()


def graph(pipeline: Pipeline) -> tuple[Node, ...]:
    """The stages with what they need; raises `RecipeError` with file, line and fix."""
    nodes = [_node(pipeline, stage) for stage in pipeline.stages]
    _refuse_shared_outputs(pipeline, nodes)
    needs = [_needs(nodes, number) for number in range(len(nodes))]
    return tuple(
        Node(node.stage, node.writes, node.reads, found)
        for node, found in zip(nodes, needs, strict=True)
    )


def dependents(nodes: Sequence[Node], name: str) -> list[str]:
    """A stage and all stages that need it, directly or through others, in order."""
    found = [name]
    for node in nodes:
        if any(need in found for need in node.needs):
            found.append(node.stage.name)
    return found


def _node(pipeline: Pipeline, stage: Stage) -> Node:
    reads = [
        Read(named.path, pipeline.place(stage.name, *named.loc), named.is_model)
        for named in named_paths(stage)
        if named.loc != ("output",)
    ]
    if isinstance(stage, TrainStage):
        expect_there((), reads[0])
        recipe = load_recipe(stage.recipe)
        reads += _reads(stage.recipe, recipe)
        if recipe.dev is not None:
            reads += _reads(recipe.dev.suite, _suite(recipe.dev.suite, reads))
        return Node(stage, recipe.output, tuple(reads))
    if isinstance(stage, EvalStage):
        reads += _reads(stage.suite, _suite(stage.suite, reads))
        return Node(stage, stage.output, tuple(reads))
    if isinstance(stage, DecodeStage):
        expect_there((), next(read for read in reads if read.path == stage.study))
        reads += _reads(stage.study, load(Study, stage.study))
        return Node(stage, stage.output, tuple(reads))
    if isinstance(stage, GateStage):
        expect_there((), reads[0])
        reads += _reads(stage.policy, load(GateRules, stage.policy))
        return Node(stage, stage.output, tuple(reads))
    if isinstance(stage, DataStage):
        settings = job_of(pipeline, stage).settings
        source = pipeline.options_of(stage)
        reads += [
            Read(named.path, source.place(named.loc), named.is_model)
            for named in named_paths(settings)
        ]
    return Node(stage, stage.output if isinstance(stage, DataStage | SampleStage) else None,
                tuple(reads))  # fmt: skip


def _suite(file: str, reads: Sequence[Read]) -> Suite:
    expect_there((), next(read for read in reads if read.path == file))
    return load(Suite, file)


def _reads(file: str, recipe: Strict) -> list[Read]:
    """The paths that the recipe in this file reads, with their lines."""
    source = read_yaml(file)
    return [
        Read(named.path, source.place(named.loc), named.is_model)
        for named in named_paths(recipe)
        if named.loc != ("output",)
    ]


def _refuse_shared_outputs(pipeline: Pipeline, nodes: Sequence[Node]) -> None:
    writers = [node for node in nodes if node.writes is not None]
    for number, node in enumerate(writers):
        for earlier in writers[:number]:
            assert node.writes is not None
            assert earlier.writes is not None
            if _inside(node.writes, earlier.writes) or _inside(earlier.writes, node.writes):
                raise RecipeError(
                    f"stages {earlier.stage.name} and {node.stage.name} both write to "
                    f"{min(node.writes, earlier.writes, key=len)}",
                    where=pipeline.place(node.stage.name),
                    fix="give each stage an output of its own, none inside another's",
                )


def _needs(nodes: Sequence[Node], number: int) -> tuple[str, ...]:
    found = []
    for read in nodes[number].reads:
        writer = _writer(nodes, read)
        if writer is None:
            expect_there(nodes, read)
        elif writer < number:
            _expect_written(nodes[writer], read)
            found.append(nodes[writer].stage.name)
        else:
            _refuse_order(nodes, number, writer, read)
    return tuple(dict.fromkeys(found))


def _writer(nodes: Sequence[Node], read: Read) -> int | None:
    """The number of the stage that writes this path, if any. Raises if a hub model's name is also a
    stage's folder."""
    path = read.path if Path(read.path).is_absolute() else _beside(read)
    for number, node in enumerate(nodes):
        if node.writes is not None and _inside(path, node.writes):
            if path != read.path:
                raise RecipeError(
                    f"`{read.path}` is read as the name of a hub model, but stage "
                    f"{node.stage.name} writes a folder of that name",
                    where=read.where,
                    fix=f"write ./{read.path}",
                )
            return number
    return None


def _beside(read: Read) -> str:
    return str(Path(read.where.rsplit(":", 1)[0]).resolve().parent / read.path)


def _inside(path: str, folder: str) -> bool:
    return Path(path).is_relative_to(folder)


def expect_there(nodes: Sequence[Node], read: Read) -> None:
    """Raise `RecipeError` for a path that neither exists nor is written by one of these stages."""
    if not Path(read.path).is_absolute() or is_there(read.path):
        return
    if not any(node.writes and _inside(read.path, node.writes) for node in nodes):
        raise RecipeError(
            f"{read.path} is not there, and no stage writes it",
            where=read.where,
            fix="check the path, or add the stage that writes it",
        )


def _expect_written(writer: Node, read: Read) -> None:
    """Raise unless a path inside a run is its model, `<output>/final`."""
    if not isinstance(writer.stage, TrainStage):
        return
    parts = Path(read.path).relative_to(str(writer.writes)).parts
    known = (*OURS, *FOLDERS)
    if not parts or not (parts[0] in known or parts[0].startswith("checkpoint-")):
        raise RecipeError(
            f"stage {writer.stage.name} writes no {read.path}" if parts
            else f"{read.path} is the folder of a whole run, not of a model",
            where=read.where,
            fix=f"its model is in {writer.writes}/final",
        )  # fmt: skip


def _refuse_order(nodes: Sequence[Node], number: int, writer: int, read: Read) -> None:
    reader, later = nodes[number].stage.name, nodes[writer].stage.name
    if number == writer:
        raise RecipeError(
            f"stage {reader} reads what it writes itself: {read.path}",
            where=read.where,
            fix="choose another output or another input",
        )
    back = [_writer(nodes, other) for other in nodes[writer].reads]
    cycle = f", and {later} reads what {reader} writes" if number in back else ""
    fix = f"list {later} before {reader}"
    raise RecipeError(
        f"stage {reader} reads {read.path}, which stage {later} writes only later{cycle}",
        where=read.where,
        fix="one of the two has to read something else" if cycle else fix,
    )
