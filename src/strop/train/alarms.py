"""Alarms: the ways a run lies, seen from its own log, and what is then done.

An alarm is a fold over the rows of `metrics.jsonl`, nothing else: a resumed run reads its old rows
and knows what it knew. A detector turns rows into one number; the number has to cross the
threshold for `patience` rows in a row; the alarm rings once and again only after it was silent.
"""

from __future__ import annotations

import math
import statistics
import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from strop.errors import StoppedByAlarm
from strop.recipe.alarm import AlarmRecipe, CommonAlarms

Row = Mapping[str, float]

START = 3
"""Rows whose mean stands for the start of a run."""

ROOM = 0.1
"""Share of the seen reward range that has to be left to gain before a still run is a stuck one."""

LONG = 10
"""Steps whose mean is followed where single steps say little."""

MEMORY = 50
"""Rows that a running median remembers."""


class Detector(ABC):
    """One number per row, or `None` where the row says nothing; `above` says which side is bad."""

    above = True

    @abstractmethod
    def measure(self, row: Row) -> float | None:
        """The number of this row, after all rows before it."""

    @abstractmethod
    def explain(self, value: float) -> str:
        """What the number means, as one sentence."""


class Start:
    """The mean of a metric over the first rows that have it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[float] = []

    def see(self, row: Row) -> float | None:
        """The start's mean once it is known."""
        value = row.get(self.name)
        if value is not None and len(self.seen) < START:
            self.seen.append(value)
        return sum(self.seen) / START if len(self.seen) == START else None


class Displacement(Detector):
    """How far the chosen log-prob per token is below the best it has been (at first: the
    reference), while the margin has risen. Means of a few steps, since batches differ.

    Without a reference (SimPO, ORPO, CPO) the log-prob itself is followed, over more steps: it
    differs from batch to batch by what the answers are.
    """

    def __init__(self) -> None:
        self.margin = Start("rewards/margins")
        self.recent: deque[float] = deque(maxlen=LONG)
        self.best = -math.inf

    def measure(self, row: Row) -> float | None:
        if "rewards/margins" not in row:
            return None
        drift, margin = row.get("displacement/chosen_per_token"), self.margin.see(row)
        self.recent.append(row["logps/chosen_per_token"] if drift is None else drift)
        steps = LONG if drift is None else START
        if len(self.recent) < steps:
            return None
        level = sum(list(self.recent)[-steps:]) / steps
        self.best = max(self.best, level)
        risen = row["rewards/margins"] > (0.0 if drift is not None or margin is None else margin)
        return self.best - level if risen else 0.0

    def explain(self, value: float) -> str:
        return (
            f"chosen answers became less likely ({value:.3g} nats a token below their best) while "
            "the margin rose: the model is unlearning what it should prefer. Lower "
            "optim.learning_rate, replay demonstrations (weights in data), add "
            "objective.nll_weight where the method has it, or use dpop"
        )


class Reward:
    """How much of the reward range seen so far is still to be gained, as a share."""

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf

    def room(self, row: Row) -> float | None:
        if "reward" not in row:
            return None
        self.low = min(self.low, row.get("reward_min", row["reward"]))
        self.high = max(self.high, row.get("reward_max", row["reward"]))
        span = self.high - self.low
        return (self.high - row["reward"]) / span if span > 0 else 0.0


class EntropyCollapse(Detector):
    """Entropy as a share of its start, while there is reward left to gain."""

    above = False

    def __init__(self) -> None:
        self.start, self.reward = Start("entropy"), Reward()

    def measure(self, row: Row) -> float | None:
        room, start = self.reward.room(row), self.start.see(row)
        if start is None or "entropy" not in row:
            return None
        return row["entropy"] / start if room is not None and room > ROOM else 1.0

    def explain(self, value: float) -> str:
        return (
            f"entropy fell to {value:.2g} of its start while better answers are known: the policy "
            "stopped exploring. Lower optim.learning_rate, or give it reason to explore "
            "(objective.entropy_weight or a larger epsilon_high, where the method has them)"
        )


class ZeroVariance(Detector):
    """Share of groups whose rewards are all equal, while there is reward left to gain."""

    def __init__(self) -> None:
        self.reward = Reward()

    def measure(self, row: Row) -> float | None:
        room = self.reward.room(row)
        if "frac_reward_zero_std" not in row:
            return None
        return row["frac_reward_zero_std"] if room is not None and room > ROOM else 0.0

    def explain(self, value: float) -> str:
        return (
            f"{value:.0%} of groups have equal rewards and carry no gradient. Use prompts of the "
            "right difficulty, a larger rollout.group_size, or rollout.resample"
        )


class Level(Detector):
    """A metric itself."""

    def __init__(self, name: str, sentence: str) -> None:
        self.name, self.sentence = name, sentence

    def measure(self, row: Row) -> float | None:
        return row.get(self.name)

    def explain(self, value: float) -> str:
        return self.sentence.format(value=value)


class LengthDrift(Detector):
    """Completion length over its start, unless the held-out reward has gained meanwhile."""

    def __init__(self) -> None:
        self.start = Start("completions/mean_length")
        self.first: float | None = None
        self.gained = False

    def measure(self, row: Row) -> float | None:
        held_out = row.get("eval_reward")
        if held_out is not None:
            self.first = held_out if self.first is None else self.first
            self.gained = held_out - self.first > noise(row)
        start = self.start.see(row)
        if start is None or "completions/mean_length" not in row:
            return None
        return 1.0 if self.gained else row["completions/mean_length"] / start

    def explain(self, value: float) -> str:
        return (
            f"answers grew to {value:.2g} times their length without a held-out gain. Use "
            "rollout.overlong_buffer, a token-level denominator (dapo, dr_grpo), or a reward that "
            "does not pay for length"
        )


class Hacking(Detector):
    """Fall of the held-out reward from its best while the trained reward is above what it was."""

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=START)
        self.best: tuple[float, float] | None = None

    def measure(self, row: Row) -> float | None:
        if "reward" in row:
            self.recent.append(row["reward"])
        held_out = row.get("eval_reward")
        if held_out is None or not self.recent:
            return None
        trained = sum(self.recent) / len(self.recent)
        if self.best is None or held_out >= self.best[0]:
            self.best = (held_out, trained)
            return 0.0
        fell = self.best[0] - held_out
        return fell if trained > self.best[1] and fell > noise(row) else 0.0

    def explain(self, value: float) -> str:
        return (
            f"the held-out reward fell {value:.3g} below its best while the trained reward rose: "
            "the policy found what the reward pays for and the task does not. Mend the reward, or "
            "keep the best checkpoint of before"
        )


class Spike(Detector):
    """Gradient norm as a multiple of its median over the last rows."""

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=MEMORY)

    def measure(self, row: Row) -> float | None:
        norm = row.get("grad_norm")
        if norm is None or norm == 0:
            return None
        usual = statistics.median(self.recent) if len(self.recent) >= START else norm
        self.recent.append(norm)
        return norm / usual

    def explain(self, value: float) -> str:
        return (
            f"the gradient norm is {value:.3g} times its median: look at the data of these steps "
            "or lower optim.learning_rate"
        )


def noise(row: Row) -> float:
    """Three standard errors of the difference of two held-out means."""
    count = row.get("eval_completions/count", 1.0)
    return 3 * row.get("eval_reward_std", 0.0) * math.sqrt(2 / count)


DETECTORS: dict[str, Callable[[], Detector]] = {
    "displacement": Displacement,
    "entropy_collapse": EntropyCollapse,
    "zero_variance": ZeroVariance,
    "length_drift": LengthDrift,
    "hacking": Hacking,
    "spike": Spike,
    "kl_runaway": lambda: Level(
        "kl",
        "the policy is {value:.3g} nats a token away from its reference. Raise objective.beta or "
        "lower optim.learning_rate",
    ),
    "mismatch": lambda: Level(
        "mismatch/logprob_difference",
        "sampler and trainer disagree by {value:.3g} nats a token. Use the same precision for "
        "both, or rollout.mismatch",
    ),
}


@dataclass(frozen=True, slots=True)
class Rung:
    """An alarm that rang: `Rung("displacement", 9, "stop", "displacement at step 9: ...")`."""

    name: str
    step: int
    action: str
    said: str

    @property
    def ends(self) -> bool:
        """Whether the run is to end here."""
        return self.action in ("pause", "stop")


class AlarmWatch:
    """All alarms of a run; feed it every row in order."""

    def __init__(self, recipe: CommonAlarms) -> None:
        wanted: dict[str, AlarmRecipe] = dict(recipe)
        self.alarms = [
            (name, alarm, DETECTORS[name]())
            for name, alarm in wanted.items()
            if alarm.action != "off"
        ]
        self.crossed = dict.fromkeys(wanted, 0)

    def see(self, row: Row) -> list[Rung]:
        """The alarms that ring at this row."""
        return [rung for name, alarm, detector in self.alarms
                if (rung := self._one(name, alarm, detector, row))]  # fmt: skip

    def _one(self, name: str, alarm: AlarmRecipe, detector: Detector, row: Row) -> Rung | None:
        value = detector.measure(row)
        if value is None:
            return None
        beyond = value > alarm.threshold if detector.above else value < alarm.threshold
        self.crossed[name] = self.crossed[name] + 1 if beyond else 0
        if self.crossed[name] != alarm.patience:
            return None
        step = int(row["step"])
        return Rung(name, step, alarm.action, f"{name} at step {step}: {detector.explain(value)}")


def act(rung: Sequence[Rung]) -> None:
    """Warn of every alarm; raise `StoppedByAlarm` for the first that ends the run."""
    for alarm in rung:
        if not alarm.ends:
            warnings.warn(alarm.said, stacklevel=2)
    for alarm in rung:
        if alarm.ends:
            raise StoppedByAlarm(alarm.said, resumable=alarm.action == "pause")
