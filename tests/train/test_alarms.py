"""Alarms ring on planted cases, stay silent on clean ones, and do what they are told."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from strop.errors import OutputError, StoppedByAlarm
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.alarm import (
    AlarmRecipe,
    CommonAlarms,
    DistilSampleAlarms,
    GkdAlarms,
    OnlineDpoAlarms,
    PairAlarms,
    PolicyAlarms,
)
from strop.text.habits import HABITS
from strop.tracking.runlog import read_rows
from strop.train.monitor.alarms import DETECTORS, AlarmWatch
from strop.train.run import train

Row = dict[str, float]


def rang(alarms: CommonAlarms, rows: Iterable[Row]) -> dict[str, int]:
    """The first step at which each alarm rings."""
    watch = AlarmWatch(alarms)
    first: dict[str, int] = {}
    for step, row in enumerate(rows, start=1):
        for alarm in watch.see({"step": step, **row}):
            first.setdefault(alarm.name, step)
    return first


def pair_rows(drift: float, margin: float, steps: int = 30) -> list[Row]:
    """A run whose margin rises and whose chosen answers drift, nats per token and step."""
    draw = random.Random(0)
    return [
        {
            "displacement/chosen_per_token": drift * n + draw.gauss(0, 0.005),
            "logps/chosen_per_token": -0.4 + drift * n + draw.gauss(0, 0.02),
            "rewards/margins": margin * n,
            "grad_norm": 3.0 * draw.lognormvariate(0, 0.3),
        }
        for n in range(steps)
    ]


def _share(draw: random.Random, count: int, share: float) -> float:
    """Of so many completions, the share that shows something by chance."""
    return sum(draw.random() < share for _ in range(count)) / count


def policy_rows(steps: int = 60, **planted: Any) -> list[Row]:
    """A healthy run: reward and held-out reward rise to the top, entropy falls as it gets sure.

    `planted[name]` is a function of the step's share of the run that replaces a metric.
    """
    draw = random.Random(1)
    rows = []
    for n in range(steps):
        done = n / steps
        row = {
            "reward": 0.3 + 0.68 * min(1.0, 1.5 * done) + draw.gauss(0, 0.02),
            "reward_std": 0.4,
            "reward_min": 0.0,
            "reward_max": 1.0,
            "entropy": 0.4 * math.exp(-3 * done) + draw.gauss(0, 0.005),
            "kl": 0.05 * done,
            "frac_reward_zero_std": 0.3 + 0.65 * done,
            "completions/mean_length": 40 + draw.gauss(0, 1),
            "grad_norm": draw.lognormvariate(0, 0.4),
            "mismatch/logprob_difference": 1e-6,
            "completions/count": 128.0,
            "hack/length_pay": draw.gauss(0, 0.1),
            "dominance/others": max(0.0, 0.1 + draw.gauss(0, 0.05)),
            **{f"hack/{name}": _share(draw, 128, 0.04) for name in HABITS},
        }
        if n % 5 == 4:
            row |= {
                "eval_reward": 0.3 + 0.6 * done + draw.gauss(0, 0.01),
                "eval_reward_std": 0.45,
                "eval_completions/count": 400.0,
            }
        rows.append(row | {name: f(done) for name, f in planted.items() if name in row})
    return rows


ALWAYS = {"eval_reward": lambda done: 0.3 + 0.01 * done}

PLANTED: dict[str, dict[str, Any]] = {
    "entropy_collapse": {
        "entropy": lambda done: 0.4 * math.exp(-12 * done),
        "reward": lambda done: 0.3 + 0.2 * done,
    },
    "zero_variance": {
        "frac_reward_zero_std": lambda done: 0.96,
        "entropy": lambda done: 0.4,
        "reward": lambda done: 0.05,
    },
    "length_drift": {
        "completions/mean_length": lambda done: 40 * (1 + 2 * done),
        "eval_reward": lambda done: 0.3,
    },
    "hacking": {
        # one deep fall, not yet long enough for a running sum
        "eval_reward": lambda done: 0.3 + (0.4 * done if done < 0.85 else 0.2),
    },
    "proxy_gap": {
        # 0.03 below its best, eval after eval: too little for `hacking`
        "eval_reward": lambda done: 0.5 if done < 0.3 else 0.47,
        "eval_reward_std": lambda done: 0.2,
    },
    "slopes": {
        # down in small, steady steps, each within the noise of one eval
        "eval_reward": lambda done: 0.5 - 0.04 * done,
    },
    "habits": {"hack/several_answers": lambda done: 0.05 + 0.5 * done},
    "length_pay": {"hack/length_pay": lambda done: 0.7},
    "dominance": {"dominance/others": lambda done: 0.3 + 0.5 * done},
    "kl_runaway": {"kl": lambda done: 2 * done},
    "mismatch": {"mismatch/logprob_difference": lambda done: 0.3 * done},
    "spike": {"grad_norm": lambda done: 1.0 if done < 0.5 else 40.0},
}


def test_every_alarm_has_a_detector_and_a_planted_case() -> None:
    kinds = (OnlineDpoAlarms, PolicyAlarms, GkdAlarms, DistilSampleAlarms)
    assert {name for kind in kinds for name in kind.model_fields} == set(DETECTORS)
    # displacement has its own cases below, others in test_dev.py and test_teachers.py
    apart = {"displacement", "capability_regression", "teacher_divergence"}
    assert set(PLANTED) | apart == set(DETECTORS)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_rings_its_alarm_and_no_other(name: str) -> None:
    # a step down is a falling line as well
    also = {"slopes"} if name == "proxy_gap" else set()
    assert set(rang(PolicyAlarms(), policy_rows(**PLANTED[name]))) == {name} | also


@pytest.mark.parametrize("seed", range(5))
def test_a_healthy_run_is_silent(seed: int) -> None:
    random.seed(seed)
    assert rang(PolicyAlarms(), policy_rows()) == {}
    assert rang(PairAlarms(), pair_rows(drift=0.01, margin=0.1)) == {}


class TestDisplacement:
    def test_rings_when_the_chosen_falls_while_the_margin_rises(self) -> None:
        assert set(rang(PairAlarms(), pair_rows(drift=-0.01, margin=0.1))) == {"displacement"}

    def test_is_silent_without_a_margin(self) -> None:
        """Chosen answers that fall with a falling margin are another trouble."""
        assert rang(PairAlarms(), pair_rows(drift=-0.01, margin=-0.1)) == {}

    def test_without_a_reference_the_start_stands_for_it(self) -> None:
        rows = pair_rows(drift=-0.03, margin=0.1)
        for row in rows:
            del row["displacement/chosen_per_token"]
        assert set(rang(PairAlarms(), rows)) == {"displacement"}

    def test_a_rise_that_is_lost_again_is_a_fall(self) -> None:
        """Better than the reference, but no longer as good as it was."""
        rows = pair_rows(drift=0.01, margin=0.1, steps=20)
        top = rows[-1]["displacement/chosen_per_token"]
        for n in range(8):
            drift = top - 0.02 * n
            rows.append({**rows[-1], "displacement/chosen_per_token": drift})
        assert set(rang(PairAlarms(), rows)) == {"displacement"}
        assert rows[-1]["displacement/chosen_per_token"] > 0

    def test_off_does_not_look(self) -> None:
        alarms = PairAlarms(displacement=AlarmRecipe(threshold=0.0, patience=1, action="off"))
        assert rang(alarms, pair_rows(drift=-0.01, margin=0.1)) == {}


class TestPatience:
    """With the plainest detector: a metric itself."""

    high, calm = ({"mismatch/logprob_difference": x} for x in (1.0, 0.0))

    def test_counts_rows_in_a_row(self) -> None:
        high, calm = self.high, self.calm
        alarms = PolicyAlarms(mismatch=AlarmRecipe(threshold=0.1, patience=3))
        assert rang(alarms, [calm, high, high, calm, high, high, calm]) == {}
        assert rang(alarms, [calm, high, high, high]) == {"mismatch": 4}

    def test_rings_again_only_after_silence(self) -> None:
        high, calm = self.high, self.calm
        alarms = PolicyAlarms(mismatch=AlarmRecipe(threshold=0.1, patience=1))
        watch = AlarmWatch(alarms)
        rows = [high, high, calm, high]
        counts = [len(watch.see({"step": n, **row})) for n, row in enumerate(rows, 1)]
        assert counts == [1, 0, 0, 1]


class TestActions:
    """In the real loop: an alarm whose threshold every gradient norm crosses."""

    def recipe(self, recipes: dict[str, Path], action: str) -> Any:
        alarm = f"alarms.spike={{threshold: 0.001, patience: 5, action: {action}}}"
        return load_recipe(recipes["dpo"], ["run.steps=12", alarm])

    def test_warn_says_so_and_writes_it_down(self, recipes: dict[str, Path]) -> None:
        with pytest.warns(UserWarning, match="spike at step 5"):
            final = train(self.recipe(recipes, "warn"))
        rows = list(read_rows(final.parent / "metrics.jsonl"))
        assert len(rows) == 12
        (rung,) = [row["alarms"] for row in rows if "alarms" in row]
        assert rung[0][0] == "warn"
        assert "learning_rate" in rung[0][1]

    def test_pause_saves_and_can_be_resumed(self, recipes: dict[str, Path]) -> None:
        recipe = self.recipe(recipes, "pause")
        with pytest.raises(StoppedByAlarm, match="--resume"):
            train(recipe)
        run = Path(recipe.output)
        assert len(list(read_rows(run / "metrics.jsonl"))) == 5
        assert (run / "checkpoint-5").is_dir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            train(recipe, resume=True)
        steps = [row["step"] for row in read_rows(run / "metrics.jsonl")]
        assert steps == list(range(1, 13))

    def test_stop_is_for_good(self, recipes: dict[str, Path]) -> None:
        recipe = self.recipe(recipes, "stop")
        with pytest.raises(StoppedByAlarm, match="spike"):
            train(recipe)
        with pytest.raises(OutputError, match="stopped by an alarm"):
            train(recipe, resume=True)
