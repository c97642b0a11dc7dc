"""Time of a run, from operations and bytes: training is bound by the first, sampling by the
second."""

from __future__ import annotations

import math
from dataclasses import dataclass

from strop.recipe.train.methods import Recipe
from strop.recipe.train.model import ModelRecipe
from strop.recipe.train.online import PolicyRecipe
from strop.train.preflight.cost.hardware import Hardware, Range
from strop.train.preflight.cost.memory import FLOAT, HALF, Critic, Memory, reads_reference
from strop.train.preflight.cost.shape import Shape
from strop.train.preflight.cost.teacher import teacher_of
from strop.train.preflight.cost.workload import Workload

USED = {"cpu": Range(0.7, 0.5, 0.25), "cuda": Range(0.5, 0.35, 0.15)}
"""Shares of a device's speed that training reaches: fast, usual and slow (so that times are low,
likely and high). Chowdhery et al. 2022 (PaLM, arXiv 2204.02311, table 3) collect 0.2 to 0.46 for
large runs; small models and short forwards reach less."""
READ = {"cpu": Range(0.8, 0.5, 0.25), "cuda": Range(0.7, 0.45, 0.2)}
"""Shares of a device's bandwidth that sampling reaches."""


LAUNCH = {"cpu": Range(0.0, 0.0, 0.0), "cuda": Range(2e-4, 6e-4, 1e-3)}
"""Seconds that a layer takes at least, however little it computes: about ten kernels, started one
by one from Python. strop's own assumption, not measured; a backward counts twice."""


@dataclass(frozen=True, slots=True)
class Duration:
    """Seconds of a step by what they are for, and of all steps: `Duration(training, sampling, 19,
    once)`; `once` is what happens before the first step."""

    training: Range
    sampling: Range
    steps: int
    once: Range

    @property
    def total(self) -> Range:
        """Seconds of the whole run."""
        return Range(*(
            self.steps * (getattr(self.training, end) + getattr(self.sampling, end))
            + getattr(self.once, end)
            for end in ("low", "likely", "high")
        ))  # fmt: skip


def duration_of(
    recipe: Recipe,
    shape: Shape,
    workload: Workload,
    memory: Memory,
    device: Hardware,
    critic: Critic | None = None,
) -> Duration:
    """How long a run takes on a device."""
    steps, passes = workload.steps, _passes(recipe)
    networks = [(shape, shape.parameters - _head(shape), recipe.model)]
    work = 0.0
    if critic is not None:
        body = critic.weights - critic.shape.vocabulary * critic.shape.hidden
        networks.append((critic.shape, body, critic.model))
        work = 2.0 * body * workload.step_tokens  # values before the first update
    for its, weights, model in networks:
        work += passes * _operations(weights, model) * workload.step_tokens
        work += passes * _attention(its, workload)
    referenced = 2 * shape.parameters * workload.step_tokens * reads_reference(recipe)
    online = workload.answers > 0
    teacher = teacher_of(recipe, shape)
    taught = 0 if teacher is None else 2 * teacher.parameters * workload.step_tokens
    before = taught if teacher is not None and teacher.once else 0
    work += taught - before + (referenced if online else 0)
    computing = _over(work, device.tflops * 1e12, USED[device.kind])
    forwards = math.ceil(workload.step_tokens / memory.tokens)
    layers = sum(its.layers for its, _, _ in networks)
    launching = LAUNCH[device.kind].times(3 * passes * forwards * layers)
    training = _sum(computing, launching)
    once = _over(
        (before + (0 if online else referenced)) * steps, device.tflops * 1e12, USED[device.kind]
    )
    return Duration(training, _sampling(recipe, shape, workload, memory, device), steps, once)


def _passes(recipe: Recipe) -> int:
    """How often a step learns from its samples."""
    return recipe.objective.updates[0] if isinstance(recipe, PolicyRecipe) else 1


def _head(shape: Shape) -> int:
    """Weights of an embedding that only looks words up, which takes no operations."""
    return shape.vocabulary * shape.hidden * (not shape.tied)


def _operations(weights: int, model: ModelRecipe) -> float:
    """Of one token, forward and backward: 2 a weight forward, 2 for the gradient of inputs, 2 for
    that of weights (Kaplan et al. 2020, arXiv 2001.08361, section 2.1); layers that are computed
    twice add 2, frozen weights save 2."""
    per_weight = 6 if model.lora is None else 4
    return float(weights * (per_weight + 2 * model.gradient_checkpointing))


def _attention(shape: Shape, workload: Workload) -> float:
    """Of a step: every token meets half of its record, 4 operations a hidden unit and layer, three
    times with the backward."""
    met = workload.longest / 2
    return 3 * 4 * shape.layers * shape.hidden * met * workload.step_tokens


def _sampling(
    recipe: Recipe, shape: Shape, workload: Workload, memory: Memory, device: Hardware
) -> Range:
    """A round draws one token of every row: it reads all weights, and computes with them once a
    row; whichever takes longer counts."""
    if workload.answers == 0:
        return Range(0.0, 0.0, 0.0)
    size = HALF if recipe.model.dtype == "bfloat16" else FLOAT
    slot = shape.slot_bytes(size)
    held = memory.parts.get("keys") or slot * workload.answers * workload.answer_tokens
    rows = max(1, min(workload.answers, held // (slot * workload.answer_tokens)))
    rounds = workload.sampled / rows
    reading = _over(rounds * size * shape.parameters, device.gb_per_second * 1e9, READ[device.kind])
    work = 2 * shape.parameters * (workload.sampled + workload.prompt_tokens)
    computing = _over(work, device.tflops * 1e12, USED[device.kind])
    busy = Range(
        max(reading.low, computing.low),
        max(reading.likely, computing.likely),
        max(reading.high, computing.high),
    )
    return _sum(busy, LAUNCH[device.kind].times(rounds * shape.layers))


def _sum(one: Range, other: Range) -> Range:
    return Range(one.low + other.low, one.likely + other.likely, one.high + other.high)


def _over(work: float, speed: float, shares: Range) -> Range:
    """Seconds at these shares of a speed."""
    return Range(*(work / (speed * share) for share in (shares.low, shares.likely, shares.high)))
