"""The one place that steps an optimizer.

A method gives a step's counts (tokens, records) and, from the counts of all processes, the losses
of its micro-batches. The updater adds up the counts, runs the micro-batches, adds up the gradients,
clips them and steps. The counts are the denominators, so nothing is divided twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch.distributed.tensor import DTensor, Partial, Replicate
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from strop.distributed.world import ALONE, Counts, World
from strop.errors import NotFiniteError
from strop.losses.metrics import Mean, Metric, Sum, merge
from strop.losses.reduce import Loss
from strop.model.network import Network
from strop.model.sharding import gathered, own_part
from strop.tracking.phases import phase
from strop.train.loop.micro_batches import idle_forwards, idle_loss
from strop.train.loop.optim import Optimizers
from strop.train.loop.state import Trained, TrainState
from strop.types import Tree

MicroBatchLoss = Callable[[], Loss]
"""One forward that returns its part of the step's loss: the parts add up to the whole."""

LOWER = (
    "look at the step's data, lower optim.learning_rate or optim.max_grad_norm, or raise "
    "objective.beta where the method has it"
)

SHOWN = 5
"""Tensors that a message names."""


@dataclass(frozen=True, slots=True)
class Update:
    """One optimizer step that a method asks for: `Update({"tokens": 210}, losses)`.

    `counts` are this process's; `losses(counts)` takes the counts of all processes and returns the
    losses of this process's micro-batches, whose trees are `forwards`. `metrics` were measured
    before the forwards; `of` names the network whose weights change.
    """

    counts: Counts
    losses: Callable[[Counts], Sequence[MicroBatchLoss]]
    forwards: Sequence[Sequence[Tree]] = ()
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    of: Trained = "policy"

    def beside(self, other: Update, weight: float) -> Update:
        """This update and `weight` times another's loss, in one optimizer step."""

        def losses(counts: Counts) -> list[MicroBatchLoss]:
            scaled = [_times(weight, loss) for loss in other.losses(_of(counts, "other/"))]
            return [*self.losses(_of(counts, "own/")), *scaled]

        counts = {f"own/{name}": count for name, count in self.counts.items()}
        counts |= {f"other/{name}": count for name, count in other.counts.items()}
        forwards = (*self.forwards, *other.forwards)
        return replace(self, counts=counts, losses=losses, forwards=forwards)


def _of(counts: Counts, prefix: str) -> Counts:
    return {n.removeprefix(prefix): count for n, count in counts.items() if n.startswith(prefix)}


def _times(weight: float, loss_of: MicroBatchLoss) -> MicroBatchLoss:
    def weighted() -> Loss:
        loss = loss_of()
        return Loss(weight * loss.value, loss.metrics)

    return weighted


class Updater:
    """Makes the optimizer steps of a run, in a world of processes."""

    def __init__(self, state: TrainState, max_grad_norm: float, world: World = ALONE) -> None:
        self.state, self.max_grad_norm, self.world = state, max_grad_norm, world

    def step(self, update: Update, *, learning_rate: float, where: str) -> dict[str, Metric]:
        """Forward and backward of every micro-batch, then one clipped update.

        Raises `NotFiniteError` naming `where` when loss or gradient is not finite; weights and
        optimizer are then as they were.
        """
        network, optimizer, scale = self._trained(update.of)
        with phase("data"):
            losses = list(update.losses(self.world.total(update.counts)))
            idle = idle_forwards(network, len(losses), self.world)
            losses += [partial(idle_loss, network)] * idle
        metrics = dict(update.metrics)
        values: list[torch.Tensor] = []
        for loss_of in losses:
            with phase("forward"):
                loss = loss_of()
            with phase("backward"):
                loss.value.backward()
            values.append(loss.value.detach())
            metrics = merge(metrics, loss.metrics)
        with phase("optimizer"):
            trained = network.trainable()
            self.world.add_gradients(trained)
            norm = total_norm(trained)
            numbers = _numbers(values)
            self._expect_finite(network, optimizer, numbers, norm, update.of, where)
            clip_grads_with_norm_(trained, self.max_grad_norm, norm)
            optimizer.step(learning_rate * scale)
            optimizer.zero_grad()
        if update.of == "critic":
            return self.world.merged(metrics)
        merged = self.world.merged({**metrics, "loss": Sum(sum(numbers))})
        return merged | {
            "loss": Mean.of(merged["loss"].result()),
            "grad_norm": Mean.of(float(norm)),
            "learning_rate": Mean.of(learning_rate),
        }

    def _trained(self, of: Trained) -> tuple[Network, Optimizers, float]:
        """The network, its optimizer, and by how much its learning rate differs."""
        critic = self.state.critic
        if of == "critic" and critic is not None:
            return critic.network, critic.optimizer, critic.rate_scale
        return self.state.network, self.state.optimizer, 1.0

    def _expect_finite(
        self,
        network: Network,
        optimizer: Optimizers,
        numbers: Sequence[float],
        norm: torch.Tensor,
        of: Trained,
        where: str,
    ) -> None:
        finite = all(map(math.isfinite, (*numbers, float(norm))))
        # all processes decide together: one that went on alone would wait for the others for ever
        if not self.world.total({"not_finite": float(not finite)})["not_finite"]:
            return
        whose = "" if of == "policy" else f"the {of}'s "
        tensors = [f"{whose}{tensor}" for tensor in _not_finite(network, numbers)]
        optimizer.zero_grad()
        raise NotFiniteError(where, tensors, fix=LOWER)


def total_norm(parameters: Sequence[torch.nn.Parameter]) -> torch.Tensor:
    """The norm of all gradients together, also of those whose parts several processes hold."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    parts = [g for g in gradients if isinstance(g, DTensor)]
    whole = [g for g in gradients if not isinstance(g, DTensor)]
    norms = [get_total_norm(whole)] if whole else []
    for cut in dict.fromkeys((g.device_mesh, g.placements) for g in parts):
        alike = [g for g in parts if (g.device_mesh, g.placements) == cut]
        norms.append(_norm_of_parts(alike))
    return get_total_norm(norms) if len(norms) > 1 else norms[0] if norms else torch.zeros(())


def _norm_of_parts(gradients: Sequence[DTensor]) -> torch.Tensor:
    """The norm of gradients that are cut alike."""
    mesh, placements = gradients[0].device_mesh, gradients[0].placements
    own = get_total_norm([own_part(g) for g in gradients]).to(mesh.device_type)
    held = [Replicate() if place.is_replicate() else Partial() for place in placements]
    squares: Any = DTensor.from_local(own.square(), mesh, held, run_check=False)
    return gathered(squares).sqrt()


SKIPPED = "skipped/nonfinite"


def skipped_row(learning_rate: float, made: int = 0) -> dict[str, float]:
    """The log row of a step that left out an update because its loss or gradient was not finite,
    after `made` others."""
    row = {SKIPPED: 1.0, "learning_rate": learning_rate}
    return {**row, "nonfinite/updates_before": float(made)} if made else row


def made_since(state: TrainState, before: tuple[int, int]) -> tuple[int, str]:
    """How many updates were made since `state.updates()` was `before`, and in words."""
    policy, critic = (now - then for now, then in zip(state.updates(), before, strict=True))
    said = f"{policy} update{'s' if policy > 1 else ''} of the policy"
    if state.critic is not None:
        said += f" and {critic} of the critic"
    return policy + critic, said if policy + critic else ""


def _numbers(values: Sequence[torch.Tensor]) -> list[float]:
    """The losses as numbers, fetched from the device at once."""
    return torch.stack(list(values)).tolist() if values else []


def _not_finite(network: Network, values: Sequence[float]) -> list[str]:
    """Names of weights and losses that are not finite; only if all of those are finite, of
    gradients, because a loss that is not finite spoils every gradient."""
    count = len(values)
    named = [(n, p) for n, p in network.model.named_parameters() if p.requires_grad]
    weights = [f"weights {name}" for name, p in named if not own_part(p).isfinite().all()]
    losses = [
        f"loss of forward {number} of {count}: {value}"
        for number, value in enumerate(values, 1)
        if not math.isfinite(value)
    ]
    gradients = [
        f"gradient of {name}"
        for name, p in named
        if p.grad is not None and not own_part(p.grad).isfinite().all()
    ]
    found = weights + losses or gradients or ["the norm, or what another process has"]
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return found[:SHOWN] + more
