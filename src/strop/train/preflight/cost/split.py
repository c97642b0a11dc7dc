"""How many GPUs are to sample and how many to train, so that least is idle."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from strop.errors import UsageError
from strop.model.load import load_config
from strop.recipe.train.methods import Online, Recipe
from strop.recipe.train.online import OnlineRecipe
from strop.train.preflight.cost.estimate import SHARE_FREE, estimate
from strop.train.preflight.cost.fleet import TENSOR, Answers, Fleet
from strop.train.preflight.cost.hardware import GIB, Hardware
from strop.train.preflight.cost.measured import Measured
from strop.train.preflight.cost.memory import DIVIDED, FLOAT, HALF, Memory, memory_of
from strop.train.preflight.cost.period import Period, generation, period, queued
from strop.train.preflight.cost.workload import Workload

FEWEST, MOST = 2, 1024
"""GPUs that a plan is made for."""
NODE = max(TENSOR)
NETWORK = 50.0
"""GB a second that a GPU sends: 400 Gbit/s, as each of eight in a usual node has."""


@dataclass(frozen=True, slots=True)
class Speeds:
    """What is known of a GPU: `Speeds(network=50.0, sampling=4200.0, training=9800.0)`, in GB and
    in answer tokens a second. What is `None` is taken from `measured`, else from sizes. `beside` is
    how many times as long training takes while its process samples elsewhere."""

    network: float = NETWORK
    sampling: float | None = None
    training: float | None = None
    measured: Measured | None = None
    beside: float | None = None

    @property
    def sampled(self) -> float | None:
        return self.sampling or (self.measured.sampling if self.measured else None)

    @property
    def trained(self) -> float | None:
        return self.training or (self.measured.training if self.measured else None)


@dataclass(frozen=True, slots=True)
class Split:
    """A way to use GPUs: `Split("apart", 1, gpus=64, generating=40, training=24, tensor=2, ...)`.

    `in turn` all sample and then all train; `apart` each has its part. `generate`, `update` and
    `sync` are the seconds of a step's parts, `dollars` those of the run, `times` how much faster
    it is than in turn.
    """

    placement: str
    staleness: int
    gpus: int
    generating: int
    training: int
    tensor: int
    generate: float
    update: float
    sync: float
    period: Period
    dollars: float
    times: float = 1.0

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "placement": self.placement,
            "max_staleness": self.staleness,
            "gpus": self.gpus,
            "generating": self.generating,
            "training": self.training,
            "tensor_parallel": self.tensor,
            "seconds": {"generate": self.generate, "update": self.update, "sync": self.sync,
                        "step": self.period.seconds},
            "idle": {"generating": self.period.generator_idle,
                     "training": self.period.trainer_idle},
            "times_in_turn": self.times,
            "cost": self.dollars,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Planner:
    """The step-time model of a run: `slower` is by what factor sampling was measured to be slower
    than sizes say, `alone` are the seconds that one GPU would train for a step."""

    fleet: Fleet
    memory: Memory
    speeds: Speeds
    steps: int
    slower: float
    alone: float

    @property
    def device(self) -> Hardware:
        return self.fleet.device

    def batch(self, generating: int, tensor: int, overlap: float) -> float:
        """Seconds from one step's answers to the next."""
        return self.slower * self.fleet.batch(generating, tensor, overlap)

    def update(self, training: int) -> float:
        """Seconds of training on so many GPUs: a share of the answers, and the gradients' exchange,
        which nothing hides."""
        count = self.fleet.answers.count
        return self.alone * math.ceil(count / training) / count + self._exchange(training)

    def _exchange(self, training: int) -> float:
        """An all-reduce sends every gradient twice; weights that are divided over the GPUs are
        gathered for the forward and for the backward."""
        moved = 2 * self.memory.parts["gradients"]
        if self.fewest_training() > 1:
            moved += 2 * self.fleet.weights
        return moved * (training - 1) / training / (self.speeds.network * 1e9)

    def fewest_training(self) -> int:
        """GPUs over which weights, gradients and moments have to be divided to fit."""
        held = sum(self.memory.parts.get(name, 0) for name in DIVIDED)
        room = SHARE_FREE * self.device.memory_gib * GIB - (self.memory.total - held)
        if room <= 0:
            raise UsageError("what one forward keeps does not fit a GPU",
                             fix="set model.gradient_checkpointing: true, or lower "
                             "run.micro_batch_tokens")  # fmt: skip
        return math.ceil(held / room)

    def sync(self) -> float:
        """Seconds in which one trainer hands the new weights (an adapter alone, where the model has
        one) to all engines."""
        moved = self.memory.parts.get("adapter") or self.fleet.weights
        return moved / (self.speeds.network * 1e9)

    def in_turn(self, gpus: int) -> Split:
        """All GPUs sample, then all train; neither side waits for the other."""
        usable = [tensor for tensor in self.fleet.tensors() if tensor <= gpus]
        tensor = min(usable, key=lambda one: self.batch(gpus, one, 1.0))
        generate, update = self.batch(gpus, tensor, 1.0), self.update(gpus)
        found = replace(self._period(generate, update, 0), generator_idle=0.0, trainer_idle=0.0)
        return Split("in turn", 0, gpus, gpus, gpus, tensor, generate, update, self.sync(), found,
                     self._dollars(gpus, found.seconds))  # fmt: skip

    def apart(self, gpus: int, staleness: int) -> Split:
        """The fastest split that engines permit: the longer one side waits, the slower it is."""
        splits = self._splits(gpus, staleness)
        return min(splits, key=lambda one: (one.period.seconds, one.generating))

    def _splits(self, gpus: int, staleness: int) -> Iterator[Split]:
        """Engines of every size; of more than two nodes, whole nodes change sides."""
        for tensor in self.fleet.tensors():
            step = tensor if gpus <= 2 * NODE else NODE
            for generating in range(step, gpus - self.fewest_training() + 1, step):
                yield self._split(generating, gpus - generating, tensor, staleness)

    def _split(self, generating: int, training: int, tensor: int, staleness: int) -> Split:
        def batch(overlap: float) -> float:
            return self.batch(generating, tensor, overlap)

        gpus, update, sync = generating + training, self.update(training), self.sync()
        if staleness:
            update *= self.speeds.beside or 1.0
        generate = generation(batch, update, staleness, sync)
        found = self._period(generate, update, staleness)
        return Split("apart", staleness, gpus, generating, training, tensor, generate, update, sync,
                     found, self._dollars(gpus, found.seconds))  # fmt: skip

    def _period(self, generate: float, update: float, staleness: int) -> Period:
        """With the changes from step to step that were measured, where they were."""
        measured = self.speeds.measured
        if measured is None:
            return period(generate, update, staleness, self.sync())
        return queued(
            [generate * one for one in measured.sampling_spread],
            [update * one for one in measured.training_spread],
            staleness,
            self.sync(),
        )

    def _dollars(self, gpus: int, seconds: float) -> float:
        return seconds * self.steps / 3600 * gpus * self.device.price.likely


def expect_split(recipe: Recipe, device: Hardware) -> Online:
    """Raise `UsageError` for a recipe that samples nothing, and for a device that is no GPU."""
    if not isinstance(recipe, OnlineRecipe):
        raise UsageError(f"{recipe.method} samples nothing, so there is nothing to split",
                         fix="leave out --split, or give a method that samples")  # fmt: skip
    if device.kind != "cuda":
        raise UsageError(f"GPUs are split, and this is no GPU: {device.name}",
                         fix="name the GPU that is meant: --hardware h100")  # fmt: skip
    return recipe


def planner(
    recipe: Recipe,
    workload: Workload,
    device: Hardware,
    speeds: Speeds,
    config: Any | None = None,
) -> Planner:
    """The model of a recipe's steps on a kind of GPU; `config` is read from its folder unless
    given.

    Raises `UsageError` as `expect_split` does, and for a model that no engine of one node holds.
    """
    online = expect_split(recipe, device)
    if config is None:
        config = load_config(recipe.model.path, recipe.model.trust_remote_code)
    found = estimate(recipe, workload, device, config)
    memory = memory_of(recipe, config, found.shape, replace(workload, answers=0), device.kind)
    answers = _answers(online, workload, speeds.measured)
    size = HALF if recipe.model.dtype == "bfloat16" else FLOAT
    fleet = Fleet(found.shape, device, size, answers)
    if not fleet.tensors():
        raise UsageError(f"{NODE} {device.name} do not hold an engine of this model",
                         fix="take GPUs with more memory, or model.dtype: bfloat16")  # fmt: skip
    alone, sampled = found.duration.training.likely, answers.count * answers.mean
    if speeds.trained is not None:
        alone = sampled / speeds.trained
    slower, tensor = 1.0, fleet.tensors()[0]
    if speeds.sampled is not None:
        slower = sampled / (speeds.sampled * tensor) / fleet.batch(tensor, tensor, 1.0)
    return Planner(fleet, memory, speeds, workload.steps, slower, alone)


def _answers(recipe: OnlineRecipe, workload: Workload, measured: Measured | None) -> Answers:
    """Lengths as they were measured, else as the workload assumes them."""
    group = recipe.rollout.group_size
    mean, longest = workload.sampled / workload.answers, float(recipe.rollout.max_tokens)
    if measured is not None:
        mean, longest = measured.mean_length, measured.longest
    prompt = workload.prompt_tokens * group / workload.answers
    return Answers(workload.answers, mean, longest, prompt, workload.prompt_tokens)


def plan(model: Planner, gpus: int, staleness: int) -> Sequence[Split]:
    """In turn, apart without staleness, and apart with it: the best of each for so many GPUs.

    Raises `UsageError` for too few or too many GPUs.
    """
    needed = max(FEWEST, model.fewest_training() + model.fleet.tensors()[0])
    if gpus > MOST:
        raise UsageError(f"{gpus} GPUs are more than a plan is made for",
                         fix=f"give --gpus up to {MOST}")  # fmt: skip
    if gpus < needed:
        raise UsageError(f"{gpus} {model.device.name} cannot be split: one engine and the training "
                         f"need {needed}", fix=f"give --gpus from {needed} on; `strop estimate` "
                         "without --split says what lowers memory")  # fmt: skip
    first = model.in_turn(gpus)
    others = [model.apart(gpus, one) for one in sorted({0, staleness})]
    return [first, *(replace(one, times=first.period.seconds / one.period.seconds)
                     for one in others)]  # fmt: skip


def assumptions(model: Planner, workload: Workload) -> Iterator[str]:
    """What a plan takes for granted, in words."""
    speeds, answers = model.speeds, model.fleet.answers
    if speeds.measured is None:
        yield from workload.assumed
    yield (
        f"a step samples {answers.count} answers of {answers.mean:.0f} tokens, the longest of "
        f"{answers.longest:.0f}"
    )
    yield f"a GPU sends {speeds.network:g} GB/s (--network): gradients, and weights to the engines"
    if speeds.beside is None:
        yield "training is as fast beside sampling as in turn (else --measured-beside)"
    if speeds.sampled is None:
        yield "sampling as an engine with captured kernels does, from bytes and operations"
    if speeds.trained is None:
        yield "training from operations; what is divided over GPUs loses only the exchange"
    reached = ", ".join(f"of {gpus} {share:.0%}" for gpus, share in TENSOR.items() if gpus > 1)
    yield f"an engine stays in a node and reaches, of its GPUs' speed: {reached}"
    yield "in turn, memory changes hands in no time"
    yield "several GPUs train in another system: strop trains in one process"
