"""Alarms: known failures of a run, detected in its own log, and the actions they trigger.

An alarm depends only on the rows of `metrics.jsonl`, so a resumed run restores its alarms by
reading its old rows. A detector turns rows into one number; when the number is beyond the threshold
for `patience` rows in a row the alarm fires, and it can fire again only after the number was back
within the threshold.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from strop.errors import StoppedByAlarm
from strop.recipe.train.alarm import AlarmRecipe, CommonAlarms
from strop.recipe.train.dev import DevRecipe
from strop.train.monitor.detector import START, Detector, Row, Start
from strop.train.monitor.hacking import (
    Habits,
    Hacking,
    LengthDrift,
    LengthPay,
    OppositeSlopes,
    ProxyGap,
)

ROOM = 0.1
"""A run without progress counts as stuck only if more than this share of the reward range seen so
far is still to be gained."""

LONG = 10
"""Steps in a mean, for metrics whose single steps are too noisy."""

MEMORY = 50
"""Rows in a running median."""


class Displacement(Detector):
    """How far the chosen log-prob per token is below its best so far (at first: the reference)
    while the margin has risen. Both are means over a few steps, since batches differ.

    Without a reference (SimPO, ORPO, CPO) it follows the log-prob itself, over more steps, because
    the log-prob varies with the answers of each batch.
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


class RewardTrend:
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


NEAR = 0.05
"""Nats a token: a student that begins nearer to its teacher counts as so far away, because what is
measured on samples varies around a small distance, also below 0."""


class TeacherDivergence(Detector):
    """Distance from the teacher as a multiple of what it was at the start, of `NEAR` at least."""

    def __init__(self) -> None:
        self.start = Start("teacher/divergence")

    def measure(self, row: Row) -> float | None:
        start = self.start.see(row)
        if start is None or "teacher/divergence" not in row:
            return None
        return row["teacher/divergence"] / max(start, NEAR)

    def explain(self, value: float) -> str:
        return (
            f"the student is {value:.3g} times as far from its teacher as at the start: it moves "
            "away from what it should learn. Lower optim.learning_rate, or look at what the reward "
            "or the replayed demonstrations teach beside the teacher"
        )


class EntropyCollapse(Detector):
    """Entropy as a share of its start, while there is reward left to gain, or much to learn from a
    teacher."""

    above = False

    def __init__(self) -> None:
        self.start, self.reward = Start("entropy"), RewardTrend()
        self.teacher = TeacherDivergence()

    def measure(self, row: Row) -> float | None:
        room, start = self.reward.room(row), self.start.see(row)
        left = self.teacher.measure(row)
        room = left if room is None else room
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
        self.reward = RewardTrend()

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


class CapabilityRegression(Detector):
    """How many general scores of the dev suite are more than the tolerance below their values
    before step 1, while the target score is above its own."""

    def __init__(self, recipe: DevRecipe | None = None) -> None:
        self.recipe = recipe
        self.start: Row | None = None
        self.now: Row = {}

    def measure(self, row: Row) -> float | None:
        recipe = self.recipe
        if recipe is None or not recipe.general or row.get(f"dev/{recipe.metric}") is None:
            return None
        self.now = row
        if self.start is None:
            self.start = row
        return len(self._fallen()) if self._gain(recipe.metric) > 0 else 0.0

    def explain(self, value: float) -> str:
        assert self.recipe is not None
        fell = ", ".join(self._change(name) for name in self._fallen())
        return (
            f"the target rose ({self._change(self.recipe.metric)}) while general scores fell "
            f"({fell}): the run pays for its task with what the model could do. Lower "
            "optim.learning_rate, replay what is being lost (a source of demonstrations with a "
            "`weight` in data), or stop here and keep the best checkpoint of before"
        )

    def _fallen(self) -> list[str]:
        assert self.recipe is not None
        lost = self.recipe.tolerance + 1e-9  # 0.52 - 0.5 is a little more than 0.02
        return [name for name in self.recipe.general if self._gain(name) < -lost]

    def _gain(self, name: str) -> float:
        """Change since before step 1; none where a score could not be measured."""
        assert self.start is not None
        before, now = self.start.get(f"dev/{name}"), self.now.get(f"dev/{name}")
        return 0.0 if before is None or now is None else now - before

    def _change(self, name: str) -> str:
        assert self.start is not None
        return f"{name} {self.start[f'dev/{name}']:.3g} to {self.now[f'dev/{name}']:.3g}"


DETECTORS: dict[str, Callable[[], Detector]] = {
    "capability_regression": CapabilityRegression,
    "displacement": Displacement,
    "entropy_collapse": EntropyCollapse,
    "zero_variance": ZeroVariance,
    "length_drift": LengthDrift,
    "hacking": Hacking,
    "habits": Habits,
    "length_pay": LengthPay,
    "proxy_gap": ProxyGap,
    "slopes": OppositeSlopes,
    "dominance": lambda: Level(
        "dominance/others",
        "{value:.0%} of the advantage comes from other rewards than the first. Raise its weight or "
        "make it a gate (`strop reward audit` says how much)",
    ),
    "spike": Spike,
    "teacher_divergence": TeacherDivergence,
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
class FiredAlarm:
    """An alarm that fired: `FiredAlarm("displacement", 9, "stop", "displacement at step 9: ...",
    7)`; `since` is the step at which its number first was beyond the threshold."""

    name: str
    step: int
    action: str
    said: str
    since: int

    @property
    def ends(self) -> bool:
        """Whether the run is to end here."""
        return self.action in ("pause", "stop", "rollback")


class AlarmWatch:
    """All alarms of a run; feed it every row in order."""

    def __init__(self, recipe: CommonAlarms, dev: DevRecipe | None = None) -> None:
        wanted: dict[str, AlarmRecipe] = dict(recipe)
        detectors = DETECTORS | {"capability_regression": lambda: CapabilityRegression(dev)}
        self.alarms = [
            (name, alarm, detectors[name]())
            for name, alarm in wanted.items()
            if alarm.action != "off"
        ]
        self.crossed = dict.fromkeys(wanted, 0)
        self.since = dict.fromkeys(wanted, 0)

    def see(self, row: Row) -> list[FiredAlarm]:
        """The alarms that fire at this row."""
        return [fired for name, alarm, detector in self.alarms
                if (fired := self._one(name, alarm, detector, row))]  # fmt: skip

    def _one(
        self, name: str, alarm: AlarmRecipe, detector: Detector, row: Row
    ) -> FiredAlarm | None:
        value = detector.measure(row)
        if value is None:
            return None
        beyond = value > alarm.threshold if detector.above else value < alarm.threshold
        step = int(row["step"])
        self.crossed[name] = self.crossed[name] + 1 if beyond else 0
        if self.crossed[name] == 1:
            self.since[name] = step
        if self.crossed[name] != alarm.patience:
            return None
        said = f"{name} at step {step}: {detector.explain(value)}"
        return FiredAlarm(name, step, alarm.action, said, self.since[name])


def act(fired: Sequence[FiredAlarm]) -> None:
    """Warn of every alarm; raise `StoppedByAlarm` for the first alarm that ends the run."""
    for alarm in fired:
        if not alarm.ends:
            warnings.warn(alarm.said, stacklevel=2)
    for alarm in fired:
        if alarm.ends:
            raise StoppedByAlarm(alarm.said, resumable=alarm.action != "stop")
