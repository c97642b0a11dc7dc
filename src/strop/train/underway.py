"""A running run: its networks loaded, then its dev suite measured and its steps logged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from strop.distributed.world import ALONE, World
from strop.engines.engine import Engine
from strop.model.network import Network
from strop.recipe.loading.load import flat
from strop.recipe.train.methods import Recipe
from strop.text.parse import decode
from strop.text.trees import Rendered
from strop.tracking.notify.notifier import LOG, Notifier
from strop.tracking.runlog import RunLog
from strop.tracking.sinks import FOLDER as SINKS_FOLDER
from strop.tracking.sinks import TrackedRun
from strop.tracking.story.facts import METRICS
from strop.tracking.story.log import MetricsLog
from strop.tracking.story.sentence import sentence
from strop.train.build import build_loop, build_state
from strop.train.loop.state import TrainState
from strop.train.methods.table import policy_of
from strop.train.monitor.dev import Dev
from strop.train.monitor.journal import RunJournal
from strop.train.preflight.prepared import Prepared, PreparedOffline
from strop.train.preflight.space import refuse_full
from strop.train.preflight.starting_model import starting_model
from strop.train.rundir.checkpoint import restore
from strop.train.rundir.directory import LINEAGE
from strop.train.teachers.build import Teaching, teaching_of
from strop.types import Preference, StepRecord


@dataclass(frozen=True, slots=True)
class Begun:
    """A run whose networks are loaded; `steps` are the remaining ones."""

    recipe: Recipe
    prepared: Prepared
    state: TrainState
    steps: Iterator[StepRecord]
    world: World
    teaching: Teaching | None


@dataclass(frozen=True, slots=True)
class Run(Begun):
    """A run with its journal, and with a dev suite if the recipe has one."""

    journal: RunJournal
    dev: Dev | None

    @property
    def best(self) -> int | None:
        return None if self.dev is None else self.dev.best_step


def begin(
    recipe: Recipe,
    prepared: Prepared,
    checkpoint: Path | None,
    engine: Engine | None,
    ends: ExitStack,
    world: World = ALONE,
) -> tuple[Begun, dict[str, Any]]:
    """Load the networks, build the loop, load the checkpoint. Returns the run and the checks made;
    `ends` is given what has to be done when the run ends."""
    folder = prepared.folder
    torch.manual_seed(recipe.seed)
    start = world.first(lambda: starting_model(recipe, folder))  # which may write a copy
    state = build_state(recipe, start, muon=prepared.muon, world=world)
    world.first(lambda: refuse_full(state, recipe, folder, prepared.total_steps))
    # references come from the starting model, so they are made before a checkpoint is loaded
    teaching = teaching_of(recipe, policy_of(state)) if recipe.taught_by is not None else None
    steps, checks = build_loop(state, prepared, engine, world, ends=ends, teaching=teaching)
    if world.data_rank:  # dropout differs between records, not within a tensor group
        torch.manual_seed(recipe.seed + world.data_rank)
    if checkpoint is not None:
        restore(state, checkpoint, world.data_rank)
    return Begun(recipe, prepared, state, steps, world, teaching), checks


def observed(begun: Begun, journal: RunJournal) -> Run:
    """The run with its dev suite measured between steps; writes its first records to the
    samples."""
    recipe, prepared, state = begun.recipe, begun.prepared, begun.state
    steps, dev = begun.steps, None
    if recipe.dev is not None and prepared.dev is not None:
        dev = Dev(recipe.dev, prepared.dev.suite, state.network, prepared.folder, begun.world)
        steps = dev.watch(steps)
    first = state.step == 0 and begun.world.rank == 0
    if isinstance(prepared, PreparedOffline) and first:
        _show_masks(state.network, prepared.rendered, journal.samples)
    return Run(recipe, prepared, state, steps, begun.world, begun.teaching, journal, dev)


def tracked(recipe: Recipe, folder: Path) -> TrackedRun:
    """The run as trackers see it."""
    artifacts = {"final": "final", "lineage": LINEAGE, "report": "report.html"}
    paths = {name: str(folder / file) for name, file in artifacts.items()}
    return TrackedRun(folder.name, folder / SINKS_FOLDER, flat(recipe.plain()), paths)


def notifier_of(recipe: Recipe, world: World) -> Notifier:
    """Who is told of the run, by its first process."""
    folder = Path(recipe.output)
    return Notifier(
        recipe.run.notify if world.rank == 0 else (),
        folder.name,
        where="run.notify",
        log=folder / LOG,
        facts={"folder": str(folder), "method": recipe.method},
        summary=lambda: _summary(folder / METRICS),
    )


def _summary(path: Path) -> str:
    """What the log says, where it can be read."""
    log = MetricsLog(path)
    try:
        log.refresh()
    except OSError:
        return ""
    return sentence(log)


def _show_masks(network: Network, rendered: Rendered, samples: RunLog) -> None:
    """Write the first records as the model reads them, with their supervised parts."""
    samples.truncate_after(-1)  # an earlier start that made no step showed them already
    for tree, record in zip(rendered.trees[:3], rendered.records[:3], strict=True):
        compared = isinstance(record, Preference)
        names = ("chosen", "rejected") if compared else ("completion",) * len(tree.branches)
        for name, branch in zip(names, tree.branches, strict=True):
            pairs = zip(branch.ids, branch.supervised, strict=True)
            samples.append(
                {
                    "step": 0,
                    "prompt": decode(network.tokenizer, tree.trunk),
                    name: decode(network.tokenizer, branch.ids),
                    "learnt": decode(network.tokenizer, [i for i, learn in pairs if learn]),
                }
            )
