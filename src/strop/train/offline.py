"""Learning from records: draw, forward, loss, step."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from strop.data.order import Mix
from strop.metrics.phases import phase
from strop.metrics.value import Metric, merge, results
from strop.model.logprobs import eval_mode
from strop.recipe.methods import Offline
from strop.train.optim import learning_rate
from strop.train.step import Share, TrainState, optimizer_step
from strop.train.supervised import SupervisedMethod, replayed
from strop.types import StepRecord


class OfflineMethod(Protocol):
    """One way to learn from records: supervised, pairs, thumbs, reward model."""

    def shares(self, indices: Sequence[int]) -> list[Share]:
        """The loss of these records as one step, cut into forwards."""

    def evaluate(self) -> list[Share]:
        """The loss over all records."""

    def finish(self, row: dict[str, float], *, learnt: bool) -> dict[str, float]:
        """The step's metrics as they are logged; `learnt` says whether weights were updated."""


@dataclass(frozen=True, slots=True)
class OfflineParts:
    """What an offline run works with; `replay` are demonstrations mixed in, if any."""

    method: OfflineMethod
    mix: Mix
    total: int
    replay: SupervisedMethod | None
    held_out: OfflineMethod | None


def train_offline(state: TrainState, recipe: Offline, parts: OfflineParts) -> Iterator[StepRecord]:
    """Run from `state.step` to the end, one record a step; the caller logs and checkpoints."""
    while state.step < parts.total:
        started = time.perf_counter()
        with phase("data"):
            drawn = parts.mix.draw(state.step)
            shares = parts.method.shares(drawn.own)
            shares += replayed(parts.replay, drawn)
        metrics = optimizer_step(
            state.network,
            state.optimizer,
            shares,
            learning_rate=learning_rate(recipe.optim, state.step, parts.total),
            max_grad_norm=recipe.optim.max_grad_norm,
            where=f"step {state.step + 1}",
        )
        state.step += 1
        row = parts.method.finish(results(metrics), learnt=True)
        row["epoch"] = state.step / parts.mix.epoch_steps()
        row["step_time"] = time.perf_counter() - started
        due = recipe.eval and (state.step % recipe.eval.every == 0 or state.step == parts.total)
        if due and parts.held_out is not None:
            row |= evaluate(state, parts.held_out)
        yield StepRecord(state.step, parts.total, row)


@torch.no_grad()
def evaluate(state: TrainState, held_out: OfflineMethod) -> dict[str, float]:
    """Loss and metrics on the held-out records, names prefixed `eval_`."""
    metrics: dict[str, Metric] = {}
    value = 0.0
    with phase("evaluation"), eval_mode(state.network.model):
        for share in held_out.evaluate():
            loss = share()
            value += float(loss.value)
            metrics = merge(metrics, loss.metrics)
    row = held_out.finish(results(metrics), learnt=False)
    return {f"eval_{name}": value for name, value in {**row, "loss": value}.items()}
