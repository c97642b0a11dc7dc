"""What a side reports: one measured step, and what of its first step the other side can check."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.cases import Case, Entrant, Run

LEARNING_RATE = 1e-4
"""High enough that losses move, so that they can be compared step by step."""
ONLINE_RATE = 1e-6
"""Low enough that the policies of both sides, who sample for themselves, stay alike."""
REAL_RATE = 1e-5
"""A rate that a trained model stands."""


def learning_rate(case: Case) -> float:
    """What both sides train a case with."""
    if case.kind == "grpo":
        return ONLINE_RATE
    return REAL_RATE if case.data == "real" else LEARNING_RATE


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's samples as the other side can learn (or score) them."""

    prompts: list[list[int]]
    completions: list[list[int]]
    rewards: list[float]
    logprobs: list[list[float]]


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did. `flops` is its unavoidable arithmetic (strop's own count); `sampling` are
    the seconds of it in which answers were sampled and rewarded (online methods)."""

    loss: float = 0.0
    grad_norm: float = 0.0
    tokens: int = 0
    flops: float = 0.0
    batch: Batch | None = None
    sampling: float = 0.0


OnStep = Callable[[Callable[[], Step]], None]
"""Called after every step with a function that describes it: the clock is stopped before."""


Answers = Mapping[str, Callable[..., object]]
"""What a side can be asked between steps, and what answers it."""


class Stop(Exception):  # noqa: N818 - not an error
    """The coordinator has seen enough."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run's files are: `model/`, `data.jsonl` and a scratch folder of the side's own."""

    folder: Path
    scratch: Path

    @property
    def model(self) -> str:
        return str(self.folder / "model")

    @property
    def data(self) -> Path:
        return self.folder / "data.jsonl"


class Side(Protocol):
    """A system that does a run's steps and tells `on_step` after each.

    `answers`, filled by `load`, holds what the coordinator may ask between steps: "rate" (the
    machine's matrix products at this model's shapes, operations a second; strop's sides) and
    "check" (loss and gradient norm, or for a sampler log-probs, of the other side's first batch).
    """

    answers: Answers

    def __init__(self, run: Run, entrant: Entrant, place: Place) -> None: ...

    def load(self) -> None:
        """Everything before the first step: weights, data, reference log-probs."""

    def run(self, on_step: OnStep) -> None:
        """All steps; `on_step` may raise `Stop`."""


REWARDS: dict[str, Sequence[dict[str, Any]]] = {
    "random": [{"file": "world.py", "function": "even_words"}],
    "algebra": [
        {"function": "exact_answer", "weight": 1.0},
        {"function": "format_tags", "weight": 0.25},
    ],
    "real": [{"function": "exact_answer"}],
}
"""What both sides are rewarded by. Weights are powers of two: with 0.2 TRL's float32 mean of equal
rewards is off by a rounding, which its division by (std + 1e-4) makes an advantage of 0.001 for
every answer of a group that has nothing to learn."""
