"""A whole training run: check, load, train, checkpoint, finish; it can be killed and resumed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from strop.distributed.stragglers import Stragglers
from strop.distributed.world import ALONE, World
from strop.engines.engine import Engine
from strop.errors import StoppedBySignal
from strop.files import locked, refuse_locked, sweep
from strop.recipe.train.methods import Recipe
from strop.text.chat.clock import written_on
from strop.tracking.control import forget
from strop.tracking.notify.notifier import Notifier
from strop.tracking.sinks import Sinks
from strop.train.final import finish
from strop.train.loop.signals import Interrupted, Signals, interruptible, watched
from strop.train.monitor.alarms import FiredAlarm, act
from strop.train.monitor.dev import Dev
from strop.train.monitor.heed import heard, wait_while_paused
from strop.train.monitor.journal import RunJournal
from strop.train.monitor.profile import FOLDER, Profile, Profiler, refuse_profile
from strop.train.monitor.recovery import Recovery
from strop.train.pin import pinned
from strop.train.preflight.alike import expect_alike, expect_own_engine, expect_world
from strop.train.preflight.prepare import prepare
from strop.train.preflight.prepared import Prepared
from strop.train.preflight.space import disk_errors
from strop.train.rundir.checkpoint import mark_best, random_states, step_of
from strop.train.rundir.directory import run_inputs, write_dropped, write_identity
from strop.train.rundir.replaced import kept_aside, let_go
from strop.train.rundir.resume import Start, find_start, mark_resumed, prepare_folder
from strop.train.rundir.writer import Writer
from strop.train.underway import Begun, Run, begin, notifier_of, observed, tracked
from strop.types import StepRecord


def train(
    recipe: Recipe,
    *,
    resume: bool = False,
    resume_from: Path | None = None,
    force_resume: bool = False,
    overwrite: bool = False,
    force: bool = False,
    profile: int | None = None,
    engine: Engine | None = None,
    world: World = ALONE,
    on_start: Callable[[Prepared, int], None] = lambda prepared, step: None,
    on_step: Callable[[StepRecord], None] = lambda record: None,
    on_profile: Callable[[Profile], None] = lambda profile: None,
) -> Path:
    """Run a recipe to its end and return the folder of the final model.

    `resume` continues from the newest whole checkpoint, `resume_from` from this one; `force_resume`
    allows another recipe or other files than the run began with. An online method samples from
    `engine`, by default from the model in this process. Every process of `world` makes this call;
    rank 0 writes the files and calls back. `on_start` gets the checks and the step the
    run starts from, `on_step` every finished step, `on_profile` the profile of `profile` steps.
    Raises `StoppedBySignal` after saving when SIGTERM or SIGINT arrives, `StoppedByAlarm` after
    saving when an alarm says so, `TrainingError` when the disk is full.
    """
    folder = Path(recipe.output)
    resume = resume or force_resume or resume_from is not None
    with (
        world.together(),
        written_on(recipe.text.date),
        watched(between_steps=world.size > 1) as signals,
        disk_errors(folder),
    ):
        with interruptible():
            given = recipe
            expect_own_engine(given, engine)
            recipe = world.first(lambda: pinned(given, force=force))
            prepared, inputs, start = _prepared(
                recipe,
                world,
                resume=resume,
                resume_from=resume_from,
                force_resume=force_resume,
                overwrite=overwrite,
                force=force,
                profile=profile,
            )
        if start.finished:
            return folder / "final"
        world = world.in_groups(recipe.run.distributed.tensor)
        with ExitStack() as ends:
            world.first(lambda: ends.enter_context(locked(folder)))
            world.first(lambda: ends.enter_context(kept_aside(folder)))
            notifier = ends.enter_context(notifier_of(recipe, world))
            with interruptible():
                changed = world.first(
                    lambda: _open(
                        recipe, prepared.checks, inputs, resume=resume, force_resume=force_resume
                    )
                )
                begun, checks = begin(recipe, prepared, start.checkpoint, engine, ends, world)
                world.first(lambda: _identify(begun, inputs, checks, start.checkpoint, changed))
            sinks = Sinks(recipe.run.sinks if world.rank == 0 else (), tracked(recipe, folder))
            journal = RunJournal(recipe, folder, begun.state.step, sinks, on_step, world)
            run = observed(begun, journal)
            if profile is not None and world.rank == 0:
                device = run.state.network.device
                profiler = Profiler(profile, folder / FOLDER, device, on_profile)
                run = replace(run, steps=profiler.watch(run.steps))
            keep = recipe.run.keep_checkpoints
            with Writer(folder, keep, step_of(start.checkpoint), world) as writer:
                with sinks:
                    world.first(lambda: on_start(prepared, run.state.step))
                    _measure_start(run, force=force)
                    world.first(lambda: let_go(folder))
                    _run_steps(run, writer, signals, notifier)
                finish(run, writer)
        if signals.number is not None:
            raise StoppedBySignal(signals.number, run.state.step)
    return folder / "final"


def _prepared(
    recipe: Recipe,
    world: World,
    *,
    resume: bool,
    resume_from: Path | None,
    force_resume: bool,
    overwrite: bool,
    force: bool,
    profile: int | None,
) -> tuple[Prepared, dict[str, Any], Start]:
    """Everything read and checked, the hashes of what was read, and where the run starts."""
    folder = Path(recipe.output)
    world.first(lambda: refuse_locked(folder))
    expect_world(recipe, world)
    prepared = prepare(
        recipe, resume=resume, overwrite=overwrite, force=force, force_resume=force_resume
    )
    inputs = run_inputs(recipe)
    expect_alike(recipe, inputs, world)
    total, start = prepared.total_steps, Start(None, finished=False)
    if resume:
        start = world.first(
            lambda: find_start(recipe, inputs, total, asked=resume_from, force_resume=force_resume)
        )
    if profile is not None:
        refuse_profile(profile, total - (total if start.finished else step_of(start.checkpoint)))
    return prepared, inputs, start


def _open(
    recipe: Recipe,
    checks: Mapping[str, Any],
    inputs: Mapping[str, Any],
    *,
    resume: bool,
    force_resume: bool,
) -> list[str] | None:
    """Make the folder ready; returns what changed since a resumed run began, `None` for a new
    one."""
    folder = Path(recipe.output)
    sweep(folder)
    forget(folder)  # what was wanted of an earlier attempt
    changed = prepare_folder(recipe, inputs, resume=resume, force_resume=force_resume)
    if changed is None:
        write_identity(folder, recipe, inputs, checks)
    return changed


def _identify(
    begun: Begun,
    inputs: Mapping[str, Any],
    checks: Mapping[str, Any],
    checkpoint: Path | None,
    changed: Sequence[str] | None,
) -> None:
    """Write down what is run, once it is known to run."""
    folder = begun.prepared.folder
    if changed is not None:
        mark_resumed(folder, checkpoint, changed)
    write_identity(folder, begun.recipe, inputs, checks)
    write_dropped(folder, begun.prepared.sources)


def _measure_start(run: Run, *, force: bool) -> None:
    """Measure the dev suite before step 1, of the model and of its teacher; raises `RecipeError`
    where the teacher is worse, unless `force`."""
    if run.dev is not None and not run.journal.begun:
        with interruptible():
            record = run.dev.start(run.prepared.total_steps)
            taught = run.dev.of_teacher(run.teaching)
        if not force:
            run.dev.expect_better(record, taught)
        run.journal.write(replace(record, metrics={**record.metrics, **taught}))


def _run_steps(run: Run, writer: Writer, signals: Signals, notifier: Notifier) -> None:
    """Run all steps. After a signal, save the last finished step with the random streams as they
    were at its end."""
    random, stragglers = random_states(), Stragglers()
    try:
        for record in _recovering(run, writer):
            fired = run.journal.write(record)
            writer.check()
            if _due(run.recipe, record, run.dev, fired):
                writer.save(run.state, best=run.best, ends=record.step == record.total)
            if fired:
                writer.wait()
                fired = [_rolled_back(alarm, run, writer) for alarm in fired]
                _tell(fired, notifier)
                act(fired)
            random = random_states()
            folder = run.prepared.folder
            wish, waited = heard(signals, folder, run.world, run.world.waited)
            slow = stragglers.see(waited)
            if slow is not None:
                warnings.warn(slow, stacklevel=2)
            if wish == "pause" and record.step < record.total:
                writer.save(run.state, best=run.best, random=random)
                writer.wait()
                wait_while_paused(signals, folder, run.world, record.step)
            if signals.number is not None:
                raise Interrupted
    except Interrupted:
        writer.save(run.state, best=run.best, random=random)
        writer.wait()
        assert signals.number is not None
        raise StoppedBySignal(signals.number, run.state.step or None) from None


def _recovering(run: Run, writer: Writer) -> Iterator[StepRecord]:
    """The steps, without those undone because too many in a row were not finite."""

    def go_back(before: int) -> Path | None:
        kept = writer.roll_back(before)
        if kept is not None:
            _find_best(run)
            run.journal.rewind(step_of(kept))
        return kept

    limit = run.recipe.run.skip_nonfinite
    recovery = Recovery(run.state, run.prepared.folder, limit, go_back, run.world)
    return recovery.watch(run.steps)


def _find_best(run: Run) -> None:
    """Find the best of the remaining checkpoints after some were dropped."""
    if run.dev is not None:
        run.dev.find_best()
        folder, step = run.prepared.folder, run.dev.best_step
        run.world.first(lambda: mark_best(folder, step))


def _due(recipe: Recipe, record: StepRecord, dev: Dev | None, fired: Sequence[FiredAlarm]) -> bool:
    """Whether this step is worth a checkpoint."""
    improves = dev is not None and dev.improves(record)
    every = recipe.run.save_every
    asked = every > 0 and record.step % every == 0
    ends = any(alarm.action in ("pause", "stop") for alarm in fired)
    return improves or asked or ends or record.step == record.total


def _tell(fired: Sequence[FiredAlarm], notifier: Notifier) -> None:
    for alarm in fired:
        text = f"{notifier.about}: {alarm.said}"
        notifier.tell("alarm", alarm.action, text, alarm=alarm.name, step=alarm.step)


def _rolled_back(alarm: FiredAlarm, run: Run, writer: Writer) -> FiredAlarm:
    """For an alarm with `rollback`: drop later checkpoints and add to its message which one is
    left."""
    if alarm.action != "rollback":
        return alarm
    kept = writer.roll_back(alarm.since)
    _find_best(run)
    where = f"{kept} is the last before" if kept else "there is no checkpoint before it"
    return replace(alarm, said=f"{alarm.said}. It began at step {alarm.since}; {where}")
