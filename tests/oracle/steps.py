"""One step's loss and gradient on either side, and what both sides begin with."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from transformers import AutoModelForCausalLM

from strop.demo.world import Equation

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
datasets.disable_progress_bars()

TRL_OPTIONS = {
    "report_to": "none", "use_cpu": True, "bf16": False, "gradient_checkpointing": False,
}  # fmt: skip
"""No half precision and no recomputation: TRL's defaults are bfloat16 and checkpointing."""

EQUATIONS = [
    Equation(3, 7, 5), Equation(2, -4, 9), Equation(7, 15, 12), Equation(9, -3, 1),
    Equation(5, 11, 8), Equation(4, -20, 11),
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """The loss of one step and its gradient in every weight, in the order of the parameters."""

    loss: float
    gradient: torch.Tensor


def shake(model: torch.nn.Module, seed: int = 4, scale: float = 0.02) -> None:
    """The same noise on the same parameters, whoever holds the model."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def stored(folder: Path) -> Any:
    """The stored model, and with it what TRL takes as the reference."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def shaken(folder: Path) -> Any:
    model = stored(folder)
    shake(model)
    return model


def step_of(model: torch.nn.Module, loss: torch.Tensor) -> Step:
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return Step(float(loss.detach()), torch.cat([g.flatten() for g in gradients]))


def combined(*parts: tuple[float, Step]) -> Step:
    """A weighted sum of losses."""
    return Step(
        sum(weight * step.loss for weight, step in parts),
        torch.stack([weight * step.gradient for weight, step in parts]).sum(0),
    )


def distance(ours: Step, theirs: Step) -> tuple[float, float]:
    """(loss apart, gradient vector apart), both relative to theirs."""
    apart = (ours.gradient - theirs.gradient).norm() / theirs.gradient.norm()
    return abs(ours.loss - theirs.loss) / abs(theirs.loss), float(apart)


def agree(ours: Step, theirs: Step) -> None:
    loss, gradient = distance(ours, theirs)
    assert theirs.gradient.norm() > 0
    assert loss <= 1e-5
    assert gradient <= 1e-4
    assert float(ours.gradient.norm()) == pytest.approx(float(theirs.gradient.norm()), rel=1e-4)


def differ(ours: Step, theirs: Step) -> None:
    """Both loss and gradient are more than a hundredth apart."""
    assert min(distance(ours, theirs)) > 0.01
