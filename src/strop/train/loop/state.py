"""What a run carries from step to step; all of it is in every checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from strop.model.network import Network, ScalarNetwork
from strop.model.reference import Reference
from strop.train.loop.optim import Optimizers

Trained = Literal["policy", "critic"]
"""Whose weights an optimizer step changes."""


class Carried(Protocol):
    """Part of a run that saves and loads itself."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, as JSON has it."""

    def load(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""


@dataclass(slots=True)
class Critic:
    """PPO's value network with its own optimizer; its rate is the policy's times `rate_scale`."""

    network: ScalarNetwork
    optimizer: Optimizers
    rate_scale: float


@dataclass(slots=True)
class DataPosition:
    """How many steps' records a run left out when it went back to a checkpoint."""

    shift: int = 0

    def state(self) -> dict[str, Any]:
        return asdict(self)

    def load(self, saved: Mapping[str, Any]) -> None:
        self.shift = saved["shift"]


@dataclass(slots=True)
class RunningMean:
    """The mean of a figure over the steps so far: after 1.0 and 2.0 `RunningMean(1.5, steps=2)`."""

    mean: float = 0.0
    steps: int = 0

    def add(self, value: float) -> None:
        self.steps += 1
        self.mean += (value - self.mean) / self.steps

    def state(self) -> dict[str, Any]:
        return asdict(self)

    def load(self, saved: Mapping[str, Any]) -> None:
        self.mean, self.steps = saved["mean"], saved["steps"]


@dataclass(slots=True)
class Streaks:
    """How many steps in a row something has held, by name: `Streaks({"exact_answer": 2})`."""

    steps: dict[str, int] = field(default_factory=dict)

    def see(self, name: str, holds: bool) -> int:
        """The streak with this step; none at all where it does not hold."""
        self.steps[name] = self.steps.get(name, 0) + 1 if holds else 0
        return self.steps[name]

    def state(self) -> dict[str, Any]:
        return asdict(self)

    def load(self, saved: Mapping[str, Any]) -> None:
        self.steps = dict(saved["steps"])


@dataclass(slots=True)
class LeftOutUpdates:
    """Updates in a row that were left out because they were not finite, and whether the run went
    back to a checkpoint for it."""

    in_a_row: int = 0
    went_back: bool = False

    def state(self) -> dict[str, Any]:
        return asdict(self)

    def load(self, saved: Mapping[str, Any]) -> None:
        self.in_a_row, self.went_back = saved["in_a_row"], saved["went_back"]


@dataclass(slots=True)
class TrainState:
    """What training changes.

    `step` counts finished steps; `reward_mean` is the mean reward of all answers learnt so far
    (BCO reads it), `unscored` how long each reward has left too many completions unscored;
    `reference` is there when it moves with the run, `rollouts` where the run samples.
    """

    network: Network
    optimizer: Optimizers
    step: int = 0
    reference: Reference | None = None
    critic: Critic | None = None
    position: DataPosition = field(default_factory=DataPosition)
    reward_mean: RunningMean = field(default_factory=RunningMean)
    unscored: Streaks = field(default_factory=Streaks)
    nonfinite: LeftOutUpdates = field(default_factory=LeftOutUpdates)
    rollouts: Carried | None = None

    def parts(self) -> dict[str, Carried]:
        """What is carried beside weights and optimizers."""
        parts: dict[str, Carried] = {
            "position": self.position,
            "reward_mean": self.reward_mean,
            "unscored": self.unscored,
            "nonfinite": self.nonfinite,
        }
        return parts if self.rollouts is None else {**parts, "rollouts": self.rollouts}

    def draw_at(self, total: int) -> int:
        """Which step's records come next, of `total`: those of `step`, or as many further on as a
        return to an earlier checkpoint left out; after the last come the first."""
        return (self.step + self.position.shift) % total

    def updates(self) -> tuple[int, int]:
        """How often this process updated the policy, and how often its critic."""
        return self.optimizer.updates, 0 if self.critic is None else self.critic.optimizer.updates
