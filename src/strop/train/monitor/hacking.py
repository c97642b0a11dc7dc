"""Detectors of reward hacking: rewards that rise without the task being done."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from strop.text.habits import HABITS
from strop.text.tool_habits import TOOL_HABITS
from strop.train.monitor.detector import START, Detector, Row, Start, noise

MEANT: dict[str, str] = {
    name: shows.__doc__ or name for name, shows in [*HABITS.items(), *TOOL_HABITS.items()]
}
"""What each habit is."""

RISE = 0.1
"""A habit counts once its share has risen by this much."""

SLACK = 0.5
"""CUSUM's allowance per evaluation, in standard errors: half the shift that it is to detect."""

EVALS = 8
"""Evaluations in a slope."""

RECENT = 2
"""Last steps that are compared with the start."""

PAID = 0.25
"""Standard deviations by which a reward has to rise to count as risen."""


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
    """Fall of the held-out reward from its best while the trained reward is above its value
    then."""

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


class Habits(Detector):
    """How surely a habit has become more common than at the start: the largest z of a
    two-proportion test of the last steps' completions against the first ones'.

    Only rises of at least ten points count: completions of a group resemble each other, so small
    rises are significant too often.
    """

    def __init__(self) -> None:
        self.first: list[Row] = []
        self.recent: deque[Row] = deque(maxlen=RECENT)
        self.habit, self.before, self.now = "", 0.0, 0.0

    def measure(self, row: Row) -> float | None:
        if "hack/empty" not in row:
            return None
        if len(self.first) < START:
            self.first.append(row)
            return None
        self.recent.append(row)
        if len(self.recent) < RECENT:
            return None
        highest = 0.0
        for name in (name for name in MEANT if f"hack/{name}" in row):
            before, early = _pooled(self.first, f"hack/{name}")
            now, late = _pooled(self.recent, f"hack/{name}")
            z = two_proportions(before, early, now, late) if now - before >= RISE else 0.0
            if z > highest:
                highest, self.habit, self.before, self.now = z, name, before, now
        return highest

    def explain(self, value: float) -> str:
        meant = MEANT[self.habit].strip().splitlines()[0].rstrip(".")
        return (
            f"completions show `{self.habit}` in {self.now:.0%}, at the start {self.before:.0%} "
            f"(z {value:.1f}; {meant[0].lower()}{meant[1:]}): the reward pays for a way of "
            "writing. Look at samples.jsonl, then run `strop reward probe`"
        )


def _pooled(rows: list[Row] | deque[Row], name: str) -> tuple[float, float]:
    """Share over all completions of these rows, and how many there were."""
    count = math.fsum(row["completions/count"] for row in rows)
    return math.fsum(row[name] * row["completions/count"] for row in rows) / count, count


def two_proportions(before: float, early: float, now: float, late: float) -> float:
    """z of the difference of two shares, pooled: (p2 - p1) / sqrt(p (1 - p) (1/n1 + 1/n2))."""
    pooled = (before * early + now * late) / (early + late)
    spread = pooled * (1 - pooled) * (1 / early + 1 / late)
    return (now - before) / math.sqrt(spread) if spread > 0 else 0.0


class LengthPay(Detector):
    """Mean correlation of reward and length among answers of equal correctness, over the last
    steps."""

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=START)

    def measure(self, row: Row) -> float | None:
        if "hack/length_pay" not in row:
            return None
        self.recent.append(row["hack/length_pay"])
        return sum(self.recent) / START if len(self.recent) == START else None

    def explain(self, value: float) -> str:
        return (
            f"among equally right answers reward follows length (correlation {value:.2f}): a part "
            "of the reward pays for words. Audit it (`strop reward audit`), or clip or drop that "
            "part"
        )


class OppositeSlopes(Detector):
    """How surely trained and held-out reward go opposite ways over the last evals: the smaller of
    the t of the trained reward's rise and of the held-out reward's fall (least squares)."""

    def __init__(self) -> None:
        self.since: list[float] = []
        self.pairs: deque[tuple[float, float]] = deque(maxlen=EVALS)

    def measure(self, row: Row) -> float | None:
        if "reward" in row:
            self.since.append(row["reward"])
        if "eval_reward" not in row or not self.since:
            return None
        self.pairs.append((sum(self.since) / len(self.since), row["eval_reward"]))
        self.since.clear()
        if len(self.pairs) < EVALS:
            return None
        trained, held_out = zip(*self.pairs, strict=True)
        return min(slope_t(trained), -slope_t(held_out))

    def explain(self, value: float) -> str:
        return (
            f"over the last {EVALS} evals the trained reward rose and the held-out reward fell (t "
            f"of both slopes at least {value:.1f}): they measure different things"
        )


def slope_t(values: Sequence[float]) -> float:
    """t of the least-squares slope over 0, 1, 2, ...; infinite where the line is exact."""
    n = len(values)
    x_mean, y_mean = (n - 1) / 2, math.fsum(values) / n
    spread = math.fsum((x - x_mean) ** 2 for x in range(n))
    slope = math.fsum((x - x_mean) * (y - y_mean) for x, y in enumerate(values)) / spread
    left = math.fsum((y - y_mean - slope * (x - x_mean)) ** 2 for x, y in enumerate(values))
    if left == 0.0:
        return math.copysign(math.inf, slope) if slope else 0.0
    return slope / math.sqrt(left / (n - 2) / spread)


class ProxyGap(Detector):
    """CUSUM of the held-out reward's fall below its reference, in standard errors (Page 1954). The
    reference is the best mean of three evaluations so far; falls count while the trained reward is
    clearly above its value at the reference."""

    def __init__(self) -> None:
        self.trained: deque[float] = deque(maxlen=START)
        self.held_out: deque[float] = deque(maxlen=START)
        self.best: tuple[float, float] | None = None
        self.sum = 0.0

    def measure(self, row: Row) -> float | None:
        if "reward" in row:
            self.trained.append(row["reward"])
        if "eval_reward" not in row or not self.trained:
            return None
        trained = sum(self.trained) / len(self.trained)
        error = noise(row) / 3  # of the difference of two evals
        if self.best is not None and error > 0:
            level, paid = self.best
            risen = trained > paid + PAID * row["reward_std"]
            fall = (level - row["eval_reward"]) / error if risen else 0.0
            self.sum = max(0.0, self.sum + fall - SLACK)
        self.held_out.append(row["eval_reward"])
        mean = sum(self.held_out) / START
        if len(self.held_out) == START and (self.best is None or mean > self.best[0]):
            self.best, self.sum = (mean, trained), 0.0
        return self.sum

    def explain(self, value: float) -> str:
        return (
            f"the held-out reward has been below its best for some time (CUSUM {value:.1f} "
            "standard errors) while the trained reward rose: they measure different things"
        )
