"""A whole training run: check, load, train, checkpoint, finish; killed and resumed at will."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from strop.errors import OutputError, StoppedBySignal
from strop.files import locked, publish, refuse_locked, sweep
from strop.model.network import Network
from strop.model.save import load_weights, save_final
from strop.recipe.loading.load import flat
from strop.recipe.train.methods import Recipe
from strop.text.chat.clock import written_on
from strop.text.parse import decode
from strop.text.trees import Rendered
from strop.tracking.report import write_report
from strop.tracking.runlog import RunLog
from strop.tracking.sinks import FOLDER as SINKS_FOLDER
from strop.tracking.sinks import Sinks, TrackedRun
from strop.train.build import build_loop, build_state
from strop.train.loop.signals import Interrupted, Signals, interruptible, watched
from strop.train.loop.state import TrainState
from strop.train.monitor.alarms import FiredAlarm, act
from strop.train.monitor.dev import Dev, find_best, start_score
from strop.train.monitor.journal import RunJournal
from strop.train.monitor.profile import FOLDER, Profile, Profiler, refuse_profile
from strop.train.monitor.recovery import Recovery
from strop.train.preflight.prepare import prepare
from strop.train.preflight.prepared import Prepared, PreparedOffline
from strop.train.preflight.selfcheck import MERGED_LIMITS, merged_difference
from strop.train.preflight.space import disk_errors, refuse_full
from strop.train.preflight.start import starting_model
from strop.train.rundir.checkpoint import (
    checkpoints,
    mark_best,
    newest_whole,
    random_states,
    restore,
    roll_back,
    step_of,
    verify,
)
from strop.train.rundir.directory import (
    LINEAGE,
    changed_inputs,
    changed_keys,
    clear,
    has_begun,
    is_finished,
    refuse_changed,
    refuse_stopped,
    reopen,
    run_inputs,
    write_final,
    write_forced,
    write_identity,
)
from strop.train.rundir.writer import Writer
from strop.types import Preference, StepRecord


def train(
    recipe: Recipe,
    *,
    resume: bool = False,
    resume_from: Path | None = None,
    force_resume: bool = False,
    overwrite: bool = False,
    force: bool = False,
    profile: int | None = None,
    on_start: Callable[[Prepared, int], None] = lambda prepared, step: None,
    on_step: Callable[[StepRecord], None] = lambda record: None,
    on_profile: Callable[[Profile], None] = lambda profile: None,
) -> Path:
    """Run a recipe to its end and return the folder of the final model.

    `resume` goes on from the newest whole checkpoint, `resume_from` from this one, `force_resume`
    also with another recipe or other files than the run began with.
    `on_start` gets the checks and the step the run starts from, `on_step` every finished step,
    `on_profile` where the time of `profile` steps went.
    Raises `StoppedBySignal` after saving when SIGTERM or SIGINT arrives, `StoppedByAlarm` after
    saving when an alarm says so, `TrainingError` when the disk is full.
    """
    folder = Path(recipe.output)
    resume = resume or force_resume or resume_from is not None
    with written_on(recipe.text.date), watched() as signals, disk_errors(folder):
        with interruptible():
            refuse_locked(folder)
            prepared = prepare(
                recipe, resume=resume, overwrite=overwrite, force=force, force_resume=force_resume
            )
            finished = resume and resume_from is None and is_finished(folder)
            if finished and force_resume:
                finished = not _changes(recipe, run_inputs(recipe))
            checkpoint = _go_on_from(folder, resume_from) if resume and not finished else None
            if resume and not finished:
                _refuse_nothing_left(folder, prepared.total_steps, checkpoint)
            if profile is not None:
                done = prepared.total_steps if finished else step_of(checkpoint)
                refuse_profile(profile, prepared.total_steps - done)
        if finished:
            return folder / "final"
        with locked(folder):
            with interruptible():
                sweep(folder)
                inputs = run_inputs(recipe)
                _settle(recipe, inputs, checkpoint, resume=resume, force_resume=force_resume)
                begun = _begin(recipe, prepared, inputs, checkpoint)
            sinks = Sinks(recipe.run.sinks, _tracked(recipe, folder))
            run = _observed(begun, RunJournal(recipe, folder, begun.state.step, sinks, on_step))
            if profile is not None:
                device = run.state.network.device
                profiler = Profiler(profile, folder / FOLDER, device, on_profile)
                run = replace(run, steps=profiler.watch(run.steps))
            keep = recipe.run.keep_checkpoints
            with Writer(folder, keep, step_of(checkpoint)) as writer:
                with sinks:
                    on_start(prepared, run.state.step)
                    _measure_start(run)
                    _go_through(run, writer, signals)
                _finish(run, writer)
            if signals.number is not None:
                raise StoppedBySignal(signals.number, run.state.step)
    return folder / "final"


def _go_on_from(folder: Path, asked: Path | None) -> Path | None:
    """The checkpoint to resume from; one that was asked for has to be whole and of this run."""
    if asked is None:
        return newest_whole(folder)
    checkpoint = folder / asked.resolve().name
    if checkpoint not in checkpoints(folder) or not checkpoint.samefile(asked):
        names = ", ".join(c.name for c in checkpoints(folder)) or "none"
        raise OutputError(
            f"is no checkpoint of the run in {folder}", where=str(asked), fix=f"it has {names}"
        )
    verify(checkpoint)
    if is_finished(folder):
        raise OutputError(
            "the run is finished",
            where=str(folder),
            fix="begin another run with `model.path` at this checkpoint, or pass --overwrite",
        )
    return checkpoint


def _refuse_nothing_left(folder: Path, total: int, checkpoint: Path | None) -> None:
    """Raise `OutputError` where the recipe asks for no step beyond those that were made, or a
    finished run has no checkpoint left; a run that was killed before its final model was written
    has that still to do."""
    if checkpoint is None and is_finished(folder):
        raise OutputError(
            "the run is finished and has no checkpoint left to go on from",
            where=str(folder),
            fix="begin another run with `model.path` at its final/, or pass --overwrite",
        )
    done = step_of(checkpoint)
    if total < done or (total == done and is_finished(folder)):
        raise OutputError(
            f"the run has made {done} steps and the recipe asks for {total}, so there is nothing "
            "to go on with",
            where=str(folder),
            fix="raise run.steps or run.epochs, or pass --overwrite to start again",
        )


def _changes(recipe: Recipe, inputs: Mapping[str, Any]) -> list[str]:
    """What of recipe and inputs is not as it was when the run in this folder began."""
    folder = Path(recipe.output)
    return [*changed_keys(folder, recipe), *changed_inputs(folder, inputs)]


def _settle(
    recipe: Recipe,
    inputs: Mapping[str, Any],
    checkpoint: Path | None,
    *,
    resume: bool,
    force_resume: bool,
) -> None:
    """Make the folder this run's: refuse what changed, or note that it was forced."""
    folder = Path(recipe.output)
    if not (resume and has_begun(folder)):
        clear(folder)
        return
    refuse_stopped(folder)
    if not force_resume:
        refuse_changed(folder, inputs)
    elif changes := _changes(recipe, inputs):
        write_forced(folder, step_of(checkpoint), changes)
    reopen(folder)
    roll_back(folder, step_of(checkpoint) + 1)


@dataclass(frozen=True, slots=True)
class _Begun:
    """A run whose networks are loaded: `steps` are those still to do."""

    recipe: Recipe
    prepared: Prepared
    state: TrainState
    steps: Iterator[StepRecord]


@dataclass(frozen=True, slots=True)
class _Run(_Begun):
    """A run that is written down, and measured where it has a dev suite."""

    journal: RunJournal
    dev: Dev | None

    @property
    def best(self) -> int | None:
        return None if self.dev is None else self.dev.best_step


def _begin(
    recipe: Recipe, prepared: Prepared, inputs: Mapping[str, Any], checkpoint: Path | None
) -> _Begun:
    folder = prepared.folder
    write_identity(folder, recipe, inputs, prepared.checks)
    torch.manual_seed(recipe.seed)
    state = build_state(recipe, starting_model(recipe, folder), muon=prepared.muon)
    refuse_full(state, recipe, folder, prepared.total_steps)
    # references are taken from the starting model, before a checkpoint's weights replace it
    steps, checks = build_loop(state, prepared)
    if checkpoint is not None:
        restore(state, checkpoint)
    write_identity(folder, recipe, inputs, checks)
    return _Begun(recipe, prepared, state, steps)


def _observed(begun: _Begun, journal: RunJournal) -> _Run:
    recipe, prepared, state = begun.recipe, begun.prepared, begun.state
    steps, dev = begun.steps, None
    if recipe.dev is not None and prepared.dev is not None:
        dev = Dev(recipe.dev, prepared.dev.suite, state.network, prepared.folder)
        steps = dev.watch(steps)
    if isinstance(prepared, PreparedOffline) and state.step == 0:
        _show_masks(state.network, prepared.rendered, journal.samples)
    return _Run(recipe, prepared, state, steps, journal, dev)


def _measure_start(run: _Run) -> None:
    if run.dev is not None and not run.journal.begun:
        with interruptible():
            record = run.dev.start(run.prepared.total_steps)
        run.journal.write(record)


def _go_through(run: _Run, writer: Writer, signals: Signals) -> None:
    """All steps; after a signal the last whole one is saved, with the random streams as it left
    them."""
    random = random_states()
    try:
        for record in _recovering(run, writer):
            fired = run.journal.write(record)
            writer.check()
            if _due(run.recipe, record, run.dev, fired):
                writer.save(run.state, best=run.best)
            if fired:
                writer.wait()
                act([_rolled_back(alarm, run, writer) for alarm in fired])
            random = random_states()
            if signals.number is not None:
                raise Interrupted
    except Interrupted:
        writer.save(run.state, best=run.best, random=random)
        writer.wait()
        assert signals.number is not None
        raise StoppedBySignal(signals.number, run.state.step or None) from None


def _recovering(run: _Run, writer: Writer) -> Iterator[StepRecord]:
    """The steps, without those undone because too many in a row were not finite."""

    def go_back(before: int) -> Path | None:
        kept = writer.roll_back(before)
        if kept is not None:
            _find_best(run)
            run.journal.rewind(step_of(kept))
        return kept

    limit = run.recipe.run.skip_nonfinite
    return Recovery(run.state, run.prepared.folder, limit, go_back).watch(run.steps)


def _find_best(run: _Run) -> None:
    """After checkpoints were dropped: the best of those that are left."""
    if run.dev is not None:
        run.dev.best = find_best(run.prepared.folder, run.dev.recipe.metric)
        mark_best(run.prepared.folder, run.dev.best_step)


def _finish(run: _Run, writer: Writer) -> None:
    """The report and the final model; an adapter is first compared with what it is merged."""
    folder, network = run.prepared.folder, run.state.network
    temporary = folder / ".final.tmp"
    writer.submit("the report", lambda: write_report(folder))
    writer.wait()
    final = _chosen(run.state, run.dev, folder)
    writer.submit("the final model", lambda: _save_final(network, temporary))
    writer.wait()
    if network.is_adapter:
        limit = MERGED_LIMITS[run.recipe.model.quantize or run.recipe.model.dtype]
        final["merged_difference"] = merged_difference(network, run.prepared.probes(), limit=limit)
    write_final(folder, final)
    writer.submit("the final model", lambda: publish(temporary, folder / "final"))
    writer.wait()


def _due(recipe: Recipe, record: StepRecord, dev: Dev | None, fired: Sequence[FiredAlarm]) -> bool:
    """Whether this step is worth a checkpoint."""
    improves = dev is not None and dev.improves(record)
    every = recipe.run.save_every
    asked = every > 0 and record.step % every == 0
    ends = any(alarm.action in ("pause", "stop") for alarm in fired)
    return improves or asked or ends or record.step == record.total


def _chosen(state: TrainState, dev: Dev | None, folder: Path) -> dict[str, Any]:
    """Put the weights that the run ends with into the network; what is told of them."""
    total = state.step
    if dev is None or dev.best is None or dev.recipe.final == "last":
        return {"step": total, "of": total, "by": "last"}
    if dev.best.step != total:
        checkpoint = folder / f"checkpoint-{dev.best.step}"
        verify(checkpoint)
        load_weights(state.network, checkpoint)
    before = start_score(folder, dev.recipe.metric)
    if dev.best.score <= before:
        warnings.warn(
            f"{dev.recipe.metric} was {before:.4g} before step 1 and never higher: the model that "
            "the run began with is as good",
            stacklevel=3,
        )
    by = {"by": f"dev/{dev.recipe.metric}", "score": dev.best.score, "before": before}
    return {"step": dev.best.step, "of": total, **by}


def _tracked(recipe: Recipe, folder: Path) -> TrackedRun:
    artifacts = {"final": "final", "lineage": LINEAGE, "report": "report.html"}
    paths = {name: str(folder / file) for name, file in artifacts.items()}
    return TrackedRun(folder.name, folder / SINKS_FOLDER, flat(recipe.plain()), paths)


def _rolled_back(alarm: FiredAlarm, run: _Run, writer: Writer) -> FiredAlarm:
    """An alarm with `rollback`: later checkpoints are dropped, and it says which one is left."""
    if alarm.action != "rollback":
        return alarm
    kept = writer.roll_back(alarm.since)
    _find_best(run)
    where = f"{kept} is the last before" if kept else "there is no checkpoint before it"
    return replace(alarm, said=f"{alarm.said}. It began at step {alarm.since}; {where}")


def _show_masks(network: Network, rendered: Rendered, samples: RunLog) -> None:
    """The first records as the model reads them, with what of them is learnt."""
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


def _save_final(network: Network, temporary: Path) -> None:
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    save_final(network, temporary)
