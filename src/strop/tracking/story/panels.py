"""Which curves stand together, in the order in which a run is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from strop.tracking.story.log import Alarm, MetricsLog

Role = Literal["training", "held out"]
Place = Literal["together", "own", "folded"]
"""Read together at the top, the method's own, or folded away."""

HELD_OUT = "eval_"
TOGETHER = ("reward", "completions/mean_length", "entropy", "kl")
"""Of a run that samples: the four that say little one by one. A reward that rises while answers
grow, or while entropy or KL run away, is another thing than one that rises."""
TOGETHER_ON_RECORDS = ("loss", "rewards/accuracies", "rewards/margins",
                       "displacement/chosen_per_token", "entropy")  # fmt: skip
TITLES: Mapping[str, str] = {
    "reward": "Reward",
    "completions/mean_length": "Length of answers, tokens",
    "entropy": "Entropy, nats a token",
    "teacher/divergence": "Distance to the teacher, nats a token",
    "kl": "KL to the reference, nats a token",
    "loss": "Loss",
    "rewards/accuracies": "Chosen above rejected, share",
    "rewards/margins": "Margin of chosen over rejected",
    "displacement/chosen_per_token": "Chosen against the reference, nats a token",
    "frac_reward_zero_std": "Groups whose rewards are all equal, share",
    "grad_norm": "Gradient norm",
    "learning_rate": "Learning rate",
    "step_time": "Seconds a step",
}
OWN_FIRST = ("teacher/", "rewards/", "logps/", "episode/", "dev/", "loss", "frac_reward_zero_std",
             "hack/", "dominance/", "grad_norm", "learning_rate")  # fmt: skip
HIDDEN = frozenset({"epoch", "sampling_time", "nonfinite/updates_before"})
CURVES: Mapping[str, tuple[str, ...]] = {
    "capability_regression": ("dev/",),
    "displacement": ("displacement/chosen_per_token", "logps/chosen_per_token"),
    "entropy_collapse": ("entropy",),
    "zero_variance": ("frac_reward_zero_std",),
    "length_drift": ("completions/mean_length",),
    "hacking": ("reward",),
    "habits": ("hack/", "reward"),
    "length_pay": ("hack/length_pay",),
    "proxy_gap": ("reward",),
    "slopes": ("reward",),
    "dominance": ("dominance/others",),
    "spike": ("grad_norm",),
    "kl_runaway": ("kl",),
    "mismatch": ("mismatch/logprob_difference",),
    "teacher_divergence": ("teacher/divergence",),
}
"""The curves that an alarm came from, the first that is there; a name with `/` at its end stands
for the curves below it that the alarm's sentence names, or the first of them."""

FELL = "while general scores fell ("
"""Where `capability_regression` begins to name the scores that fell; before it stands the one that
rose."""
FLAT = 1e-3
"""A curve whose values differ by less than this share of its largest is flat."""
ZERO = 1e-5
"""Values below it are rounding: the loss of a policy gradient in a step with one update is."""
SMALL_BY_NATURE = frozenset({"learning_rate"})


@dataclass(frozen=True, slots=True)
class Series:
    """One curve: `Series("reward", "training", steps_N, values_N)`."""

    name: str
    role: Role
    steps_N: NDArray[np.int64]
    values_N: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves on one pair of axes, and the alarms that came from them: `Panel("reward", "Reward",
    (training, held_out), (alarm,), "together")`. `why` says why it is folded away."""

    name: str
    title: str
    series: tuple[Series, ...]
    alarms: tuple[Alarm, ...]
    place: Place
    why: str = ""


def panels_of(log: MetricsLog) -> list[Panel]:
    """A panel for each metric, its held-out values beside it; those read together come first, and
    those that are flat come last."""
    names = [name for name in log.names if not name.startswith(HELD_OUT) and name not in HIDDEN]
    names += [bare for name in log.names
              if name.startswith(HELD_OUT) and (bare := name.removeprefix(HELD_OUT)) not in names
              and bare not in HIDDEN]  # fmt: skip
    first = TOGETHER if "reward" in names else TOGETHER_ON_RECORDS
    ordered = sorted(names, key=lambda name: _rank(name, first))
    owners = {id(alarm): curve_of(alarm, ordered) for alarm in log.alarms}
    panels: list[Panel] = []
    for name in ordered:
        rang = tuple(alarm for alarm in log.alarms if owners[id(alarm)] == name)
        panel = _panel(log, name, rang, first)
        twin = next((one for one in panels if not one.why and _same(one, panel)), None)
        if twin is not None and not rang:
            panel = replace(panel, place="folded", why=f"the same as {twin.title}")
        panels.append(panel)
    return sorted(panels, key=lambda panel: ("together", "own", "folded").index(panel.place))


def curve_of(alarm: Alarm, names: Sequence[str]) -> str | None:
    """The metric that an alarm came from; `None` where none of them was logged."""
    for wanted in CURVES.get(alarm.name, ()):
        if not wanted.endswith("/"):
            if wanted in names:
                return wanted
            continue
        below = [name for name in names if name.startswith(wanted)]
        told = alarm.said.partition(FELL)[2] or alarm.said
        said = [name for name in below if _says(told, name.removeprefix(wanted))]
        if said or (below and wanted == "dev/"):
            return (said or below)[0]
    return None


def _same(one: Panel, other: Panel) -> bool:
    """Whether two panels have the same curves: the only part of a reward is the reward."""
    pairs = list(zip(one.series, other.series, strict=False))
    return len(one.series) == len(other.series) > 0 and all(
        a.role == b.role
        and np.array_equal(a.steps_N, b.steps_N)
        and np.allclose(a.values_N, b.values_N, rtol=1e-6, atol=0)
        for a, b in pairs
    )


def _says(sentence: str, name: str) -> bool:
    words = re.escape(name).replace("_", "[_ ]")
    return re.search(rf"(?<![\w]){words}(?![\w])", sentence) is not None


def _panel(log: MetricsLog, name: str, rang: tuple[Alarm, ...], first: Sequence[str]) -> Panel:
    both = (
        Series(name, "training", *log.series(name)),
        Series(f"{HELD_OUT}{name}", "held out", *log.series(f"{HELD_OUT}{name}")),
    )
    series = tuple(one for one in both if len(one.values_N))
    why = "" if rang else _folded(name, series)
    place: Place = "folded" if why else "together" if name in first else "own"
    return Panel(name, TITLES.get(name, name), series, rang, place, why)


def _folded(name: str, series: Sequence[Series]) -> str:
    """Why a panel tells nothing; empty where it does."""
    if not series:
        return "never measured"
    values = np.concatenate([one.values_N for one in series])
    most = float(np.abs(values).max())
    if most < ZERO and name not in SMALL_BY_NATURE:
        return "always 0" if most == 0 else f"0 but for rounding (at most {most:.1g})"
    if len(values) > 1 and float(np.ptp(values)) <= FLAT * most:
        return f"always {values[-1]:.4g}"
    return ""


def _rank(name: str, first: Sequence[str]) -> tuple[int, int, str]:
    if name in first:
        return 0, first.index(name), name
    for place, wanted in enumerate(OWN_FIRST):
        if name == wanted or (wanted.endswith("/") and name.startswith(wanted)):
            return 1, place, name
    return 1, len(OWN_FIRST), name
