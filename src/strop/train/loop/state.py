"""The state that a run carries from step to step; every checkpoint holds all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from strop.model.network import Network, ScalarNetwork
from strop.model.reference import Reference
from strop.train.loop.optim import Optimizers

Trained = Literal["policy", "critic"]
"""The network that an optimizer step changes."""


class Carried(Protocol):
    """Part of a run that saves and loads itself."""

    def state(self) -> dict[str, Any]:
        """The state that a checkpoint keeps, as JSON values."""

    def load(self, saved: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""


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
        """The length of the streak up to this step: 0 where it does not hold."""
        self.steps[name] = self.steps.get(name, 0) + 1 if holds else 0
        return self.steps[name]

    def state(self) -> dict[str, Any]:
        return asdict(self)

    def load(self, saved: Mapping[str, Any]) -> None:
        self.steps = dict(saved["steps"])


@dataclass(slots=True)
class LeftOutUpdates:
    """How many updates in a row were left out because they were not finite, and whether the run
    went back to a checkpoint because of them."""

    in_a_row: int = 0
    went_back: bool = False

    def state(self) -> dict[str, Any]:
        return asdict(self)

    def load(self, saved: Mapping[str, Any]) -> None:
        self.in_a_row, self.went_back = saved["in_a_row"], saved["went_back"]


@dataclass(slots=True)
class TrainState:
    """What training changes.

    `step` counts finished steps; `loaded` how often a checkpoint was loaded in this process;
    `reward_mean` is the mean reward of all answers trained on so far (BCO reads it); `unscored`
    counts for each reward the steps in a row with too many unscored completions; `reference` is set
    only if it moves with the policy, `rollouts` only if the run samples.
    """

    network: Network
    optimizer: Optimizers
    step: int = 0
    loaded: int = 0
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
        """The step, of `total`, whose records come next: `step`, plus the steps whose records were
        left out when the run went back to a checkpoint; after the last step come the records of the
        first."""
        return (self.step + self.position.shift) % total

    def updates(self) -> tuple[int, int]:
        """How often this process updated the policy, and how often its critic."""
        return self.optimizer.updates, 0 if self.critic is None else self.critic.optimizer.updates
