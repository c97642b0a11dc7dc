"""A whole training run: check, load, train, checkpoint, finish; killed and resumed at will."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

import torch

from strop.errors import StoppedBySignal
from strop.metrics.report import write_report
from strop.metrics.runlog import RunLog, read_rows
from strop.model.adapters import TaskType, is_adapter_folder
from strop.model.load import has_scalar_head, load_tokenizer, load_transformer
from strop.model.network import Network
from strop.model.save import save_final
from strop.recipe.methods import Recipe
from strop.recipe.model import ModelRecipe
from strop.recipe.offline import RewardModelRecipe
from strop.text.parse import decode
from strop.train.alarms import AlarmWatch, Rung, act
from strop.train.build import build_loop, build_state
from strop.train.checkpoint import (
    latest_checkpoint,
    publish,
    restore,
    roll_back,
    save_checkpoint,
    step_of,
)
from strop.train.directory import (
    clear,
    has_begun,
    is_finished,
    refuse_changed,
    refuse_stopped,
    run_inputs,
    write_identity,
)
from strop.train.prepare import Prepared, prepare
from strop.train.profile import FOLDER, Profile, Profiler, refuse_profile
from strop.types import StepRecord, Tree


def train(
    recipe: Recipe,
    *,
    resume: bool = False,
    overwrite: bool = False,
    force: bool = False,
    profile: int | None = None,
    on_start: Callable[[Prepared, int], None] = lambda prepared, step: None,
    on_step: Callable[[StepRecord], None] = lambda record: None,
    on_profile: Callable[[Profile], None] = lambda profile: None,
) -> Path:
    """Run a recipe to its end and return the folder of the final model.

    `on_start` gets the checks and the step the run starts from, `on_step` every finished step,
    `on_profile` where the time of `profile` steps went.
    Raises `StoppedBySignal` after saving when SIGTERM or SIGINT arrives, `StoppedByAlarm` after
    saving when an alarm says so.
    """
    prepared = prepare(recipe, resume=resume, overwrite=overwrite, force=force)
    folder = prepared.folder
    final = folder / "final"
    finished = resume and is_finished(folder)
    checkpoint = latest_checkpoint(folder) if resume and not finished else None
    if profile is not None:
        done = prepared.total_steps if finished else step_of(checkpoint)
        refuse_profile(profile, prepared.total_steps - done)
    if finished:
        return final
    inputs = run_inputs(recipe)
    if resume and has_begun(folder):
        refuse_stopped(folder)
        refuse_changed(folder, inputs)
    elif folder.exists():
        clear(folder)
    write_identity(folder, recipe, inputs, prepared.checks)
    torch.manual_seed(recipe.seed)
    state = build_state(recipe, _starting_model(recipe, folder))
    # references are taken from the starting model, before a checkpoint's weights replace it
    steps, checks = build_loop(state, recipe, prepared)
    if checkpoint is not None:
        restore(state, checkpoint)
    write_identity(folder, recipe, inputs, checks)
    if profile is not None:
        profiler = Profiler(profile, folder / FOLDER, state.network.device, on_profile)
        steps = profiler.watch(steps)
    log, samples = RunLog(folder / "metrics.jsonl"), RunLog(folder / "samples.jsonl")
    log.truncate_after(state.step)
    samples.truncate_after(state.step)
    if prepared.rendered is not None and state.step == 0:
        _show_masks(state.network, prepared.rendered.trees, samples)
    watch = AlarmWatch(recipe.alarms)
    if log.path.exists():
        for row in read_rows(log.path):
            watch.see(row)
    on_start(prepared, state.step)
    with _signals() as stopped:
        for record in steps:
            rung = watch.see({"step": record.step, **record.metrics})
            alarms = {"alarms": [[alarm.action, alarm.said] for alarm in rung]} if rung else {}
            log.append({"step": record.step, **record.metrics, **alarms})
            for sample in record.samples:
                samples.append({"step": record.step, **sample})
            on_step(record)
            done = record.step == record.total
            due = recipe.run.save_every and record.step % recipe.run.save_every == 0
            ends = any(alarm.action in ("pause", "stop") for alarm in rung)
            if done or due or stopped or ends:
                save_checkpoint(state, folder, keep=recipe.run.keep_checkpoints)
            act([_rolled_back(alarm, folder) for alarm in rung])
            if stopped and not done:
                raise StoppedBySignal(stopped[0], record.step)
    write_report(folder)
    _publish_final(state.network, folder)
    return final


def _rolled_back(alarm: Rung, folder: Path) -> Rung:
    """An alarm with `rollback`: later checkpoints are dropped, and it says which one is left."""
    if alarm.action != "rollback":
        return alarm
    kept = roll_back(folder, alarm.since)
    where = f"{kept} is the last before" if kept else "there is no checkpoint before it"
    return replace(alarm, said=f"{alarm.said}. It began at step {alarm.since}; {where}")


def _starting_model(recipe: Recipe, folder: Path) -> ModelRecipe:
    """A new adapter (or a new head) on an adapter: the merged model becomes the base, saved beside
    the run."""
    model = recipe.model
    new_head = isinstance(recipe, RewardModelRecipe) and not has_scalar_head(model.path)
    if not is_adapter_folder(model.path) or not (model.lora or new_head):
        return model
    base = folder / "base"
    if not base.exists():
        temporary = folder / ".base.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        task: TaskType = "SEQ_CLS" if has_scalar_head(model.path) else "CAUSAL_LM"
        load_transformer(model.path, torch.float32, task=task).save_pretrained(temporary)
        load_tokenizer(model.path).save_pretrained(temporary)
        publish(temporary, base)
    return model.model_copy(update={"path": str(base)})


def _show_masks(network: Network, trees: Sequence[Tree], samples: RunLog) -> None:
    """The first records as the model reads them, with what of them is learnt."""
    for tree in trees[:3]:
        names = ("chosen", "rejected") if len(tree.branches) == 2 else ("completion",)
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


def _publish_final(network: Network, folder: Path) -> None:
    temporary = folder / ".final.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    save_final(network, temporary)
    publish(temporary, folder / "final")


@contextmanager
def _signals() -> Iterator[list[int]]:
    """A list that gets the number of the first SIGTERM or SIGINT; a second one exits at once."""
    arrived: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if arrived:
            os._exit(128 + number)
        arrived.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield arrived
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
