"""The sentence says what moved, and does not speak of noise."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from strop.tracking.story.log import MetricsLog
from strop.tracking.story.sentence import change, sentence


def told(tmp_path: Path, columns: Mapping[str, Sequence[object]]) -> str:
    path = tmp_path / "metrics.jsonl"
    count = len(next(iter(columns.values())))
    rows = [{"step": k + 1} | {name: values[k] for name, values in columns.items()}
            for k in range(count)]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    log = MetricsLog(path)
    log.refresh()
    return sentence(log)


def test_what_rose_fell_and_held(tmp_path: Path) -> None:
    said = told(tmp_path, {
        "reward": [0.25] * 10 + [0.75] * 10,
        "entropy": [2.0] * 10 + [0.5] * 10,
        "completions/mean_length": [30.0] * 20,
    })  # fmt: skip
    assert said == (
        "Over 20 steps the reward rose from 0.25 to 0.75; entropy fell from 2 to 0.5, while the "
        "length of answers did not change. No alarm rang."
    )


def test_what_held_out_values_did(tmp_path: Path) -> None:
    said = told(tmp_path, {"reward": [0.25] * 10 + [0.75] * 10, "eval_reward": [0.5] * 20})
    assert "the reward rose from 0.25 to 0.75 (held out: unchanged at 0.5)" in said


def test_alarms_are_named_with_their_first_step(tmp_path: Path) -> None:
    rang = [["warn", "spike at step 3: the gradient norm is large"]]
    said = told(tmp_path, {"loss": [2.0, 1.0, 1.0, 1.0], "alarms": [[], [], rang, rang]})
    assert said.endswith("Alarms: spike at step 3 and 1 more time.")


def test_the_loss_of_a_policy_gradient_is_no_news(tmp_path: Path) -> None:
    assert "loss" not in told(tmp_path, {"reward": [0.0, 1.0], "loss": [1.0, 5.0]})
    assert "the loss went from 1 to 5" in told(tmp_path, {"loss": [1.0, 5.0]})


def test_rounding_at_the_start_is_0(tmp_path: Path) -> None:
    said = told(tmp_path, {"rewards/margins": [-1.8e-6, 26.0]})
    assert "the margin went from 0 to 26" in said


def test_nothing_yet(tmp_path: Path) -> None:
    assert sentence(MetricsLog(tmp_path / "none")) == "Nothing was logged yet."
    assert told(tmp_path, {"loss": [1.0]}).startswith("Over 1 step nothing was measured twice.")


def test_what_came_back_is_told(tmp_path: Path) -> None:
    up = [0.2] * 20 + [0.9] * 20 + [0.2] * 20
    assert "the reward rose from 0.2 to 0.9 and came back to 0.2" in told(tmp_path, {"reward": up})
    down = [1.0 - one for one in up]
    assert "fell from 0.8 to 0.1 and came back to 0.8" in told(tmp_path, {"reward": down})


def test_where_a_metric_stopped_being_a_number_is_told(tmp_path: Path) -> None:
    said = told(tmp_path, {"reward": [n / 60 for n in range(60)] + [None] * 40})
    assert "(last measured at step 60)" in said


def test_noise_is_seldom_called_a_change_and_a_real_one_is_found() -> None:
    rng = np.random.default_rng(7)
    flat = [change(rng.normal(0.5, 0.1, 100)) for _ in range(400)]
    risen = [change(rng.normal(0.5, 0.1, 100) + np.linspace(0, 0.3, 100)) for _ in range(400)]
    assert sum(one is not None and one.verb != "held" for one in flat) <= 8
    assert sum(one is not None and one.verb == "rose" for one in risen) >= 380


def test_values_that_are_like_those_before_them_are_no_change_either() -> None:
    rng = np.random.default_rng(11)
    wander = []
    for _ in range(400):
        level, values = 0.0, []
        for step in rng.normal(0, 1, 100):
            level = 0.5 * level + step
            values.append(5 + level)
        wander.append(change(np.array(values)))
    assert sum(one is not None and one.verb != "held" for one in wander) <= 20


def test_a_curve_that_saturates_is_a_change() -> None:
    steps = np.arange(300)
    noise = np.random.default_rng(5).normal(0, 0.05, 300)
    for tau in (10, 30, 100):
        found = change(0.2 + 0.6 * (1 - np.exp(-steps / tau)) + noise)
        assert found is not None
        assert found.verb == "rose", tau


def test_of_few_values_nothing_is_claimed() -> None:
    rng = np.random.default_rng(3)
    for count in (2, 5, 14):
        found = change(rng.normal(1, 0.1, count))
        assert found is not None
        assert found.verb in ("went", "held")
