"""Training on records: draw, forward, loss, step."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from strop.data.order import DataMixture, DrawnRecords
from strop.distributed.deal import dealt, share_of
from strop.distributed.world import ALONE, World
from strop.errors import NotFiniteError
from strop.losses.metrics import Metric, Sum, merge, results
from strop.model.logprobs import eval_mode
from strop.recipe.train.methods import Offline
from strop.text.trees import Rendered
from strop.tracking.phases import phase
from strop.train.loop.describe import record_rows, shape_of_trees
from strop.train.loop.memory import explained, to_learn
from strop.train.loop.micro_batches import idle_forwards, idle_loss
from strop.train.loop.optim import learning_rate
from strop.train.loop.state import TrainState
from strop.train.loop.updater import Update, Updater, skipped_row
from strop.types import NotFinite, StepRecord, Tree


class OfflineMethod(Protocol):
    """A method that trains on records: supervised, pairs, thumbs, reward model."""

    @property
    def trees(self) -> Sequence[Tree]:
        """The records as the model reads them."""

    def update(self, indices: Sequence[int]) -> Update:
        """The loss of these records as one step."""

    def finish(self, row: dict[str, float], *, learnt: bool) -> dict[str, float]:
        """The step's metrics as they are logged; `learnt` says whether weights were updated."""


class Replay(Protocol):
    """Demonstrations mixed in, whatever the method."""

    @property
    def trees(self) -> Sequence[Tree]:
        """The demonstrations as the model reads them."""

    def update(self, indices: Sequence[int]) -> Update:
        """The loss of these demonstrations as one step."""


def with_replay(update: Update, replay: Replay | None, drawn: DrawnRecords, world: World) -> Update:
    """The step's loss plus the loss of its replayed demonstrations. The method's own loss is
    unchanged; the demonstrations add their mean NLL times (demonstrations / own records)."""
    if replay is None:
        return update
    own = own_records(drawn.replay, replay.trees, world)
    return update.beside(replay.update(own), len(drawn.replay) / len(drawn.own))


def own_records(indices: Sequence[int], trees: Sequence[Tree], world: World) -> list[int]:
    """Those of a step's records that this process reads; all have about as many tokens to read."""
    if world.data_size == 1:
        return list(indices)
    sizes = [len(trees[i]) for i in indices]
    return [indices[i] for i in dealt(sizes, world.data_size)[world.data_rank]]


@dataclass(frozen=True, slots=True)
class OfflineParts:
    """What an offline run works with: `method` learns from `rendered`; `replay` are demonstrations
    mixed in, if any."""

    method: OfflineMethod
    rendered: Rendered
    mixture: DataMixture
    total: int
    replay: Replay | None
    held_out: OfflineMethod | None
    world: World = ALONE


def train_offline(state: TrainState, recipe: Offline, parts: OfflineParts) -> Iterator[StepRecord]:
    """Run from `state.step` to the end, one record a step; the caller logs and checkpoints."""
    updater = Updater(state, recipe.optim.max_grad_norm, parts.world)
    while state.step < parts.total:
        started = time.perf_counter()
        with phase("data"):
            drawn = parts.mixture.draw(state.draw_at(parts.total))
        row, not_finite = _step(updater, recipe, parts, drawn)
        row["epoch"] = state.step / parts.mixture.epoch_steps()
        row["step_time"] = time.perf_counter() - started
        due = recipe.eval and (state.step % recipe.eval.every == 0 or state.step == parts.total)
        if due and parts.held_out is not None:
            row |= evaluate(state, parts.held_out, parts.world)
        yield StepRecord(state.step, parts.total, row, not_finite=not_finite)


def _step(
    updater: Updater, recipe: Offline, parts: OfflineParts, drawn: DrawnRecords
) -> tuple[dict[str, float], NotFinite | None]:
    """Train on these records: the step's metrics, or why the update was left out."""
    state = updater.state
    where = f"step {state.step + 1}"
    rate = learning_rate(recipe.optim, state.step, parts.total)
    mine = own_records(drawn.own, parts.rendered.trees, parts.world)

    def shape() -> str:
        replayed_trees = parts.replay.trees if parts.replay else ()
        own = [parts.rendered.trees[i] for i in mine]
        return shape_of_trees([*own, *(replayed_trees[i] for i in drawn.replay)])

    try:
        with explained(where, shape, to_learn(recipe)):
            update = with_replay(parts.method.update(mine), parts.replay, drawn, parts.world)
            metrics = updater.step(update, learning_rate=rate, where=where)
    except NotFiniteError as error:
        rows = tuple(record_rows(parts.rendered, drawn.own, state.network.tokenizer))
        state.step += 1
        return skipped_row(rate), NotFinite(error.tensors, rows)
    state.step += 1
    return parts.method.finish(results(metrics), learnt=True), None


@torch.no_grad()
def evaluate(state: TrainState, held_out: OfflineMethod, world: World) -> dict[str, float]:
    """Loss and metrics on the held-out records, names prefixed `eval_`; every process reads a
    part."""
    metrics: dict[str, Metric] = {}
    value = 0.0
    with phase("evaluation"), eval_mode(state.network.model):
        update = held_out.update(share_of(len(held_out.trees), world.data_rank, world.data_size))
        losses = update.losses(world.total(update.counts))
        idle = idle_forwards(state.network, len(losses), world)
        for loss_of in losses:
            loss = loss_of()
            value += float(loss.value)
            metrics = merge(metrics, loss.metrics)
        for _ in range(idle):
            idle_loss(state.network)
    merged = results(world.merged({**metrics, "loss": Sum(value)}))
    row = held_out.finish({n: v for n, v in merged.items() if n != "loss"}, learnt=False)
    return {f"eval_{name}": value for name, value in {**row, "loss": merged["loss"]}.items()}
