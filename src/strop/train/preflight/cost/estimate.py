"""What a recipe will take on a device: memory, time, money, and what would make it fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strop.model.load import load_config
from strop.recipe.train.methods import Recipe
from strop.recipe.train.model import LoraRecipe
from strop.train.preflight.cost.duration import Duration, duration_of
from strop.train.preflight.cost.hardware import GIB, Hardware, Range
from strop.train.preflight.cost.memory import Memory, critic_of, memory_of
from strop.train.preflight.cost.shape import Shape, shape_of
from strop.train.preflight.cost.workload import Workload

SPREAD = {"cpu": (0.9, 1.0, 2.0), "cuda": (0.93, 1.0, 1.12)}
"""Memory may be so much less or more than its parts: allocators keep holes. On a CPU freed buffers
are kept for speed, and up to as much again was measured (docs/estimate.md)."""
SHARE_FREE = 0.95
"""Of a device's memory that a run may take."""


@dataclass(frozen=True, slots=True)
class Fit:
    """`Fit("model.lora: {rank: 16}", 5.1, True)`: a change, the memory it leads to, whether that
    fits."""

    change: str
    memory_gib: float
    fits: bool


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run takes on `hardware`; `assumptions` are in words, `changes` lower its memory."""

    hardware: Hardware
    shape: Shape
    workload: Workload
    memory: Memory
    duration: Duration
    assumptions: tuple[str, ...]
    changes: tuple[Fit, ...]

    @property
    def memory_gib(self) -> Range:
        return Range(*(self.memory.total / GIB * share for share in SPREAD[self.hardware.kind]))

    @property
    def hours(self) -> Range:
        return self.duration.total.times(1 / 3600)

    @property
    def cost(self) -> Range:
        """Dollars."""
        hours, price = self.hours, self.hardware.price
        return Range(hours.low * price.low, hours.likely * price.likely, hours.high * price.high)

    @property
    def fits(self) -> bool:
        return self.memory_gib.likely <= SHARE_FREE * self.hardware.memory_gib

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "hardware": self.hardware.name,
            "memory_gib": self.memory_gib.plain(),
            "hours": self.hours.plain(),
            "cost": self.cost.plain(),
            "fits": self.fits,
            "steps": self.workload.steps,
            "parameters": self.shape.parameters,
            "parts_gib": {name: size / GIB for name, size in self.memory.parts.items()},
            "seconds_a_step": {
                "training": self.duration.training.plain(),
                "sampling": self.duration.sampling.plain(),
            },
            "changes": [
                {"change": one.change, "memory_gib": one.memory_gib, "fits": one.fits}
                for one in self.changes
            ],
            "assumptions": list(self.assumptions),
        }


def estimate(
    recipe: Recipe, workload: Workload, device: Hardware, config: Any | None = None
) -> Estimate:
    """Estimate a run. `config` is the model's, read from its folder unless given."""
    if config is None:
        config = load_config(recipe.model.path, recipe.model.trust_remote_code)
    shape = shape_of(config)
    memory = memory_of(recipe, config, shape, workload, device.kind)
    critic = critic_of(recipe, config)
    duration = duration_of(recipe, shape, workload, memory, device, critic)
    changes = tuple(
        _fit(said, changed, config, shape, workload, device) for said, changed in _changes(recipe)
    )
    return Estimate(
        device, shape, workload, memory, duration,
        tuple(_assumptions(workload, memory, device)), changes,
    )  # fmt: skip


def _fit(
    said: str, recipe: Recipe, config: Any, shape: Shape, workload: Workload, device: Hardware
) -> Fit:
    size = memory_of(recipe, config, shape, workload, device.kind).total / GIB
    return Fit(said, size, size <= SHARE_FREE * device.memory_gib)


def _changes(recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
    """What lowers memory, the change that costs least first; each is tried alone."""
    model, run = recipe.model, recipe.run
    if run.micro_batch_tokens is None:
        tokens = {"micro_batch_tokens": 2 * recipe.text.max_length}
        said = f"run.micro_batch_tokens: {tokens['micro_batch_tokens']}"
        yield said, recipe.model_copy(update={"run": run.model_copy(update=tokens)})
    if not model.gradient_checkpointing:
        yield "model.gradient_checkpointing: true", _model(recipe, gradient_checkpointing=True)
    if recipe.optim.optimizer == "muon":
        return
    if recipe.optim.optimizer == "adamw" and recipe.run.distributed.shard == "none":
        optim = recipe.optim.model_copy(update={"optimizer": "adamw_8bit"})
        yield "optim.optimizer: adamw_8bit", recipe.model_copy(update={"optim": optim})
    lora = model.lora or LoraRecipe()
    rank = f"model.lora: {{rank: {lora.rank}}}"
    if model.lora is None:
        yield rank, _model(recipe, lora=lora)
    if model.quantize is None:
        said = f"{rank}, quantize: nf4, gradient_checkpointing: true"
        yield said, _model(recipe, lora=lora, quantize="nf4", gradient_checkpointing=True)


def _model(recipe: Recipe, **changed: Any) -> Recipe:
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=changed)})


def _assumptions(workload: Workload, memory: Memory, device: Hardware) -> Iterator[str]:
    yield from workload.assumed
    yield f"a forward reads {memory.tokens} tokens, each keeps {memory.kept / 1e6:.2f} MB"
    yield {
        "cpu": "memory is beside what importing the libraries takes",
        "cuda": "memory is what the device holds, its driver included",
    }[device.kind]
    yield "loading, evals and saving are not counted"
    yield (
        f"{device.tflops:.3g} TFLOP/s and {device.gb_per_second:.4g} GB/s, at the shares of them "
        "that programs reach: low, likely and high differ by that"
    )
    if device.price.high:
        yield f"prices of {device.prices_of}, one device, on demand: edit them (--hardware-file)"


def parts_lines(parts: Mapping[str, int]) -> Sequence[str]:
    """The parts of a memory, the largest first: `"weights 0.50 GiB"`."""
    ordered = sorted(parts.items(), key=lambda part: -part[1])
    return [f"{name} {size / GIB:.2f} GiB" for name, size in ordered]
