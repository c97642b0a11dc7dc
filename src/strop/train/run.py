"""A whole training run: check, load, train, checkpoint, finish; killed and resumed at will."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from strop.data.order import batch_indices
from strop.data.records import PARSERS, task
from strop.data.sources import data_hash, read
from strop.errors import DataError, StoppedBySignal
from strop.metrics.report import write_report
from strop.metrics.runlog import RunLog
from strop.model.load import (
    Policy,
    expect_weights,
    is_adapter_folder,
    load_causal_lm,
    load_policy,
    load_tokenizer,
    weights_hash,
)
from strop.model.reference import Reference
from strop.model.save import save_final
from strop.recipe.data import DataSource
from strop.recipe.model import ModelRecipe
from strop.recipe.run import DpoRecipe, Offline, PolicyRecipe, Recipe
from strop.rewards.compose import Reward
from strop.rollout.collect import PromptedTask
from strop.rollout.local import LocalSampler
from strop.text.parse import decode
from strop.text.render import prompt_ids
from strop.text.trees import Rendered, render
from strop.train import offline, online
from strop.train.checkpoint import latest_checkpoint, publish, restore, save_checkpoint
from strop.train.directory import claim, is_finished, write_identity
from strop.train.optim import build_optimizer
from strop.train.reference import reference_sums
from strop.train.refuse import refuse
from strop.train.selfcheck import check_rendered, sampler_mismatch
from strop.train.step import TrainState
from strop.types import StepRecord, Tree

KINDS = {"cpt": "document", "sft": "demonstration", "dpo": "preference"}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run with everything read and checked and nothing written: what `--dry-run` stops at."""

    folder: Path
    checks: dict[str, Any]
    rendered: Rendered | None
    eval_rendered: Rendered | None
    tasks: tuple[PromptedTask, ...]
    reward: Reward | None
    total_steps: int


def prepare(recipe: Recipe, *, resume: bool, overwrite: bool, force: bool) -> Prepared:
    """Refuse what cannot end well, read the data, check it. Writes nothing, loads no weights."""
    refuse(recipe, force=force)
    expect_weights(recipe.model.path)
    folder = claim(recipe, resume=resume, overwrite=overwrite)
    tokenizer = load_tokenizer(
        recipe.model.tokenizer or recipe.model.path, recipe.model.trust_remote_code
    )
    if isinstance(recipe, PolicyRecipe):
        tasks, checks = _tasks(recipe, tokenizer)
        reward = Reward(recipe.reward)
        total = online.total_steps(recipe, len(tasks))
        return Prepared(folder, checks, None, None, tasks, reward, total)
    rendered = _rendered(recipe, tokenizer, recipe.data)
    check = check_rendered(rendered, tokenizer.eos_token_id)
    held_out = _rendered(recipe, tokenizer, recipe.eval.data) if recipe.eval else None
    total = offline.total_steps(recipe, len(rendered.trees))
    return Prepared(folder, check.plain(), rendered, held_out, (), None, total)


def train(
    recipe: Recipe,
    *,
    resume: bool = False,
    overwrite: bool = False,
    force: bool = False,
    on_start: Callable[[Prepared, int], None] = lambda prepared, step: None,
    on_step: Callable[[StepRecord], None] = lambda record: None,
) -> Path:
    """Run a recipe to its end and return the folder of the final model.

    `on_start` gets the checks and the step the run starts from, `on_step` every finished step.
    Raises `StoppedBySignal` after saving when SIGTERM or SIGINT arrives.
    """
    prepared = prepare(recipe, resume=resume, overwrite=overwrite, force=force)
    folder = prepared.folder
    final = folder / "final"
    if resume and is_finished(folder):
        return final
    checkpoint = latest_checkpoint(folder) if resume else None
    write_identity(folder, recipe, prepared.checks)
    torch.manual_seed(recipe.seed)
    start = _starting_model(recipe.model, folder)
    policy = load_policy(start, seed=recipe.seed)
    state = TrainState(policy, build_optimizer(policy, recipe.optim))
    # references are taken from the starting model, before a checkpoint's weights replace it
    steps, checks = _loop(state, recipe, prepared)
    if checkpoint is not None:
        restore(state, checkpoint)
    write_identity(folder, recipe, checks)
    log, samples = RunLog(folder / "metrics.jsonl"), RunLog(folder / "samples.jsonl")
    log.truncate_after(state.step)
    samples.truncate_after(state.step)
    if prepared.rendered is not None and state.step == 0:
        _show_masks(policy, prepared.rendered.trees, samples)
    on_start(prepared, state.step)
    with _signals() as stopped:
        for record in steps:
            log.append({"step": record.step, **record.metrics})
            for sample in record.samples:
                samples.append({"step": record.step, **sample})
            on_step(record)
            done = record.step == record.total
            due = recipe.run.save_every and record.step % recipe.run.save_every == 0
            if done or due or stopped:
                save_checkpoint(state, folder, keep=recipe.run.keep_checkpoints)
            if stopped and not done:
                raise StoppedBySignal(stopped[0], record.step)
    write_report(folder)
    _publish_final(policy, folder)
    return final


def _loop(
    state: TrainState, recipe: Recipe, prepared: Prepared
) -> tuple[Iterator[StepRecord], dict[str, Any]]:
    """The steps still to do, and the checks made on the way."""
    if isinstance(recipe, PolicyRecipe):
        assert prepared.reward is not None
        sampler = LocalSampler(state.policy.model, state.policy.tokenizer)
        mismatch = sampler_mismatch(
            state.policy,
            sampler,
            prepared.tasks,
            online.sampling_of(recipe),
            seed=recipe.seed,
            limit=recipe.rollout.mismatch_limit,
        )
        reference = Reference(state.policy) if recipe.objective.beta > 0 else None
        parts = online.OnlineParts(prepared.tasks, sampler, prepared.reward, reference)
        checks = {**prepared.checks, "sampler_mismatch": mismatch}
        return online.train_online(state, recipe, parts), checks
    assert prepared.rendered is not None
    held_out = prepared.eval_rendered.trees if prepared.eval_rendered else ()
    ref_B = eval_ref_B = None
    if isinstance(recipe, DpoRecipe):
        ref_B, eval_ref_B = _references(state, recipe, prepared)
    data = offline.OfflineData(prepared.rendered.trees, ref_B, held_out, eval_ref_B)
    return offline.train_offline(state, recipe, data), prepared.checks


def _references(
    state: TrainState, recipe: DpoRecipe, prepared: Prepared
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Reference sums per branch; pairs that no step visits are left at NaN."""
    assert prepared.rendered is not None
    trees = prepared.rendered.trees
    steps = range(prepared.total_steps)
    visited = sorted(
        {i for s in steps for i in batch_indices(len(trees), recipe.run.batch_size, recipe.seed, s)}
    )
    sums_B = _reference_of(
        state.policy, recipe, [trees[i] for i in visited], recipe.data,
        prepared.folder / "reference.safetensors", f"{recipe.seed}/{len(visited)}",
    )  # fmt: skip
    ref_B = torch.full((2 * len(trees),), float("nan"))
    ref_B.view(-1, 2)[visited] = sums_B.view(-1, 2)
    if recipe.eval is None or prepared.eval_rendered is None:
        return ref_B, None
    eval_ref_B = _reference_of(
        state.policy, recipe, prepared.eval_rendered.trees, recipe.eval.data,
        prepared.folder / "eval_reference.safetensors", "all",
    )  # fmt: skip
    return ref_B, eval_ref_B


def _reference_of(
    policy: Policy,
    recipe: DpoRecipe,
    trees: Sequence[Tree],
    sources: Sequence[DataSource],
    path: Path,
    which: str,
) -> torch.Tensor:
    paths = [source.path for source in sources]
    key = f"{weights_hash(recipe.model.path)}/{data_hash(paths)}/{recipe.text}/{which}"
    return reference_sums(
        policy, trees, path=path, key=key, max_tokens=recipe.run.micro_batch_tokens
    )


def _rendered(recipe: Offline, tokenizer: Any, sources: Sequence[DataSource]) -> Rendered:
    kind = KINDS[recipe.method]
    records = read([source.path for source in sources], PARSERS[kind])
    cut = recipe.text.overlong == "cut"
    return render(tokenizer, records, max_length=recipe.text.max_length, cut_overlong=cut)


def _tasks(recipe: PolicyRecipe, tokenizer: Any) -> tuple[tuple[PromptedTask, ...], dict[str, Any]]:
    """Rendered prompts that leave room for an answer, and how many did not."""
    records = read([source.path for source in recipe.data], task)
    room = recipe.text.max_length - recipe.rollout.max_tokens
    prompted = [
        PromptedTask(record, prompt_ids(tokenizer, record.prompt, where=str(record.origin)))
        for record in records
    ]
    kept = tuple(prompt for prompt in prompted if 0 < len(prompt.prompt_ids) <= room)
    if not kept:
        raise DataError(
            f"all {len(records)} prompts are longer than {room} tokens",
            fix="raise text.max_length or lower rollout.max_tokens",
        )
    return kept, {"records": len(kept), "dropped": len(records) - len(kept)}


def _starting_model(recipe: ModelRecipe, folder: Path) -> ModelRecipe:
    """A new adapter on an adapter: the merged model becomes the base, saved beside the run."""
    if recipe.lora is None or not is_adapter_folder(recipe.path):
        return recipe
    base = folder / "base"
    if not base.exists():
        temporary = folder / ".base.tmp"
        load_causal_lm(recipe.path, torch.float32).save_pretrained(temporary)
        load_tokenizer(recipe.path).save_pretrained(temporary)
        publish(temporary, base)
    return recipe.model_copy(update={"path": str(base)})


def _show_masks(policy: Policy, trees: Sequence[Tree], samples: RunLog) -> None:
    """The first records as the model reads them, with what of them is learnt."""
    for tree in trees[:3]:
        for branch in tree.branches:
            pairs = zip(branch.ids, branch.supervised, strict=True)
            samples.append(
                {
                    "step": 0,
                    "prompt": decode(policy.tokenizer, tree.trunk),
                    "completion": decode(policy.tokenizer, branch.ids),
                    "learnt": decode(policy.tokenizer, [i for i, learn in pairs if learn]),
                }
            )


def _publish_final(policy: Policy, folder: Path) -> None:
    temporary = folder / ".final.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    save_final(policy, temporary)
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
